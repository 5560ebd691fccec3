"""Held-out images as they are handed to actors: by their places, so that no process holds more than it works on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Protocol, Self

from pipelines.images.decoding import decode_image
from pipelines.ingest.degraded_inputs import degrade_images
from pipelines.ingest.record_reader import RecordReader
from pipelines.ingest.split_reader import SplitImages, SplitPlaces
from pipelines.storage.uris import read_bytes
from sr3core.degradations.settings import DegradationConfig
from sr3core.images.resize import resize_bicubic

if TYPE_CHECKING:
    from torch import Tensor

    from sr3core.upscaling.stage import Stage


class HeldOutImages(Protocol):
    """Inputs and originals that are read some at a time."""

    @property
    def keys(self) -> tuple[str, ...]:
        """Name of each image."""
        ...

    def part(self, chosen: slice) -> Self:
        """Some of the images."""
        ...

    def load(self, reader_of: Callable[[str], RecordReader]) -> SplitImages:
        """Read them; `reader_of` opens a folder of shards, see SplitPlaces."""
        ...


@dataclass(frozen=True, slots=True)
class PreparedImages:
    """Images of prepared data, with inputs like those of training."""

    places: SplitPlaces
    """Where they are."""
    degradation: DegradationConfig
    """What makes the inputs, if not those of the shards are taken."""

    @property
    def keys(self) -> tuple[str, ...]:
        """Key of each image."""
        return self.places.keys

    def part(self, chosen: slice) -> Self:
        """Some of the images."""
        return replace(self, places=self.places.part(chosen))

    def load(self, reader_of: Callable[[str], RecordReader]) -> SplitImages:
        """Read them, and degrade them."""
        return degrade_images(self.places.load(reader_of), self.degradation)


@dataclass(frozen=True, slots=True)
class WholePhotos:
    """Photos of any sizes, shrunk to the inputs that a run would enlarge to them; each is upscaled in tiles."""

    keys: tuple[str, ...]
    """Name of each photo."""
    files: tuple[str, ...]
    """Where each is."""
    scale: Fraction
    """Of the run's cascade."""
    degradation: DegradationConfig
    """What makes the inputs; of order 0, antialiased bicubic interpolation does."""

    def part(self, chosen: slice) -> "WholePhotos":
        """Some of the photos."""
        return replace(self, keys=self.keys[chosen], files=self.files[chosen])

    def load(self, reader_of: object) -> SplitImages:
        """Read one photo, cut to sides that shrink to whole pixels, and shrink it."""
        (file,) = self.files
        photo = decode_image(read_bytes(file)).pixels
        small = shrunk_size(photo.shape[0], photo.shape[1], self.scale)
        photo = photo[: int(small[0] * self.scale), : int(small[1] * self.scale)]
        images = SplitImages(self.keys, resize_bicubic(photo, small)[None], photo[None])
        return degrade_images(images, self.degradation)


def shrunk_size(height: int, width: int, scale: Fraction) -> tuple[int, int]:
    """The largest input of whole pixels whose enlargement has whole pixels too and fits into (height, width)."""
    rows, columns = (side // scale.numerator * scale.denominator for side in (height, width))
    return rows, columns


def upscale_photo(stages: "Sequence[Stage]", low: "Tensor", seeds: Sequence[int]) -> "Tensor":
    """Upscale one image in the tiles of `sr3 upscale`: (1, 3, h, w) -> (1, 3, H, W)."""
    import torch

    from sr3core.upscaling.tile_grid import Tiling
    from sr3core.upscaling.tiles import run_tiled_cascade

    return torch.cat([strip for _, strip in run_tiled_cascade(stages, low, seeds[0], Tiling())], dim=2)


@dataclass(frozen=True, slots=True)
class Task:
    """Held-out images for one actor."""

    images: HeldOutImages
    repeat: int = 0
    """0: every method. k > 0: only SR3, with the k-th other noise, for the diversity of its samples."""

    @property
    def keys(self) -> tuple[str, ...]:
        """Key of each image."""
        return self.images.keys
