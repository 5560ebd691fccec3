"""Held-out images as they are handed to actors: by their places, so that no process holds more than it works on."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol, Self

from pipelines.ingest.degraded_inputs import degrade_images
from pipelines.ingest.record_reader import RecordReader
from pipelines.ingest.split_reader import SplitImages, SplitPlaces
from sr3core.degradations.settings import DegradationConfig


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
class Task:
    """Held-out images for one actor."""

    images: HeldOutImages
    repeat: int = 0
    """0: every method. k > 0: only SR3, with the k-th other noise, for the diversity of its samples."""

    @property
    def keys(self) -> tuple[str, ...]:
        """Key of each image."""
        return self.images.keys
