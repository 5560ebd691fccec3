"""A trained model in Python: load it, upscale a picture, draw from noise. Needs no Ray.

from pipelines.photo_model import load_model
model = load_model()
model.upscale(Image.open("photo.jpg")).save("large.png")
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, TypeVar, cast

import numpy as np
from PIL import Image, ImageOps

from pipelines.registry.registry import find_model
from pipelines.runs.run_folder import open_run
from pipelines.runs.stage_run import StageRun, check_makes_images
from pipelines.settings.inference import InferenceConfig
from pipelines.settings.locations import PHOTOS_4X
from sr3core.errors import ConfigError

if TYPE_CHECKING:
    from sr3core.upscaling.stage import Stage

Picture = TypeVar("Picture", Image.Image, np.ndarray)


@dataclass(frozen=True, slots=True)
class PhotoModel:
    """A loaded cascade; `load_model` makes it."""

    location: str
    """Where it was loaded from."""
    stages: "tuple[Stage, ...]"
    """Its super-resolution stages in the order of their sizes."""
    base: "Stage | None"
    """Its base model, which draws images from noise; None without one."""

    @property
    def magnification(self) -> float:
        """How many times larger an upscaled picture's sides are."""
        return float(prod(stage.model.scale for stage in self.stages))

    def upscale(
        self, picture: Picture, *, seed: int = 0, tile: int | None = None, overlap: int | None = None, batch: int = 1
    ) -> Picture:
        """Enlarge a picture of any size, tile by tile.

        Args:
            picture: a PIL image, which is turned as its EXIF orientation says and converted to RGB, or a uint8 array
                (h, w, 3) in sRGB.
            seed: the same picture and seed give the same result, whatever the tiles.
            tile, overlap: side of the tiles and what neighbours share, in pixels of the output; by default as `sr3
                upscale` has them.
            batch: tiles per forward pass.

        Returns:
            A PIL image, or a uint8 array (M h, M w, 3), as the input is one; M is the magnification, and sides are
            rounded to whole pixels.

        Raises:
            ConfigError: the model enlarges nothing, the array is no such picture, or the tiles do not fit the networks.
        """
        from sr3core.images.pixels import to_float, to_uint8
        from sr3core.upscaling.tile_grid import Tiling
        from sr3core.upscaling.tiles import run_tiled_cascade

        if not self.stages:
            raise ConfigError(f"{self.location} holds only a base model: use sample()")
        low = to_float(_pixels(picture)[None]).to(self.stages[0].device)
        strips = run_tiled_cascade(self.stages, low, seed, Tiling(tile, overlap, batch))
        pixels = np.concatenate([to_uint8(strip.cpu())[0] for _, strip in strips])
        return cast("Picture", Image.fromarray(pixels) if isinstance(picture, Image.Image) else pixels)

    def sample(self, seeds: Sequence[int], classes: Sequence[int] | None = None) -> np.ndarray:
        """Draw images from noise: the base model, then the cascade (section 4.3).

        Args:
            seeds: one per image.
            classes: class of each image, if the model has classes.

        Returns:
            uint8 (n, H, W, 3).

        Raises:
            ConfigError: the model has no base model, or does not accept these classes.
        """
        from sr3core.images.pixels import to_uint8
        from sr3core.upscaling.cascade import generate

        if self.base is None:
            raise ConfigError(f"{self.location} holds no base model, which images from noise start with: use upscale()")
        return to_uint8(generate((self.base, *self.stages), seeds, classes).cpu())


def load_model(
    location: str = PHOTOS_4X,
    *,
    schedule: str | None = None,
    device: str = "cpu",
    inference: InferenceConfig | None = None,
) -> PhotoModel:
    """Load a trained model.

    Args:
        location: a run folder, a model folder of `sr3 export`, or a registry, for its promoted model; by default the
            model that comes with the program.
        schedule: an inference schedule's file or name, or a number of steps; by default the searched one with the
            most steps, and before any search ten steps of DDIM.
        device: such as "cuda".
        inference: precision and compilation.

    Raises:
        DataError: there is no model at the location.
        CheckpointError: its weights are missing, damaged or of another network.
        ConfigError: there is no such schedule, or the model is of fields.
    """
    run = open_run(find_model(location))
    check_makes_images(run.stages)

    def load(stage: StageRun) -> "Stage":
        return stage.load(schedule, inference, device, few_steps=True)

    base = run.base()
    return PhotoModel(run.location, tuple(map(load, run.cascade())), None if base is None else load(base))


def _pixels(picture: Image.Image | np.ndarray) -> np.ndarray:
    """uint8 (h, w, 3)."""
    if isinstance(picture, Image.Image):
        return np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or not picture.size:
        raise ConfigError(f"picture: {picture.dtype} {picture.shape} is not a uint8 array (h, w, 3)")
    return picture
