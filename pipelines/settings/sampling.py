"""Configuration of sampling: how fast networks are run, `sr3 upscale` and `sr3 sample`. No torch, no ray here."""

import re
from dataclasses import dataclass, field
from typing import Literal

from sr3core.config import ADDED, PLACEMENT
from sr3core.errors import ConfigError
from sr3core.hyperparameters import InferencePrecision, require

_RANGE = re.compile(r"(\d+)(?:-(\d+))?")


@dataclass(frozen=True, kw_only=True, slots=True)
class InferenceConfig:
    """How trained networks are run: what sr3core.networks.inference does to them."""

    precision: InferencePrecision = "tf32"
    """float32; tf32, which is float32 with the multiplications of GPUs in TensorFloat-32; or bfloat16, in half of the
    memory, for GPUs. The images differ by a rounding."""
    compile: bool = field(default=False, metadata=PLACEMENT)
    """torch.compile the networks, on GPUs in CUDA graphs: a minute or more at the start, for many images; where it
    fails, they run as they are."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleConfig:
    """Which images are drawn from noise, and how: `sr3 sample`."""

    num_images: int = field(default=16, metadata=PLACEMENT)
    """How many."""
    first: int = field(default=0, metadata=PLACEMENT)
    """Number of the first; an image is a function of the run, the seed, its number and its class."""
    classes: str | None = None
    """Classes that the images have in turn, such as 0-9,207; by default all that the base model knows."""
    schedule: str | None = None
    """A schedule file, the name of one of each stage's, or a number of steps; or one a stage, the base model's first:
    250,100,50. By default each stage's best found, of most steps."""
    seed: int = 0
    """Of the noise."""
    batch: int = field(default=8, metadata=PLACEMENT)
    """Images that go through the networks together."""
    num_actors: int | None = field(default=None, metadata=PLACEMENT)
    """Copies of the cascade that work side by side; by default one a GPU of the cluster, or one on its CPUs."""
    grid: str | None = field(default=None, metadata=PLACEMENT)
    """PNG file to show the first of these images in, a hundred at most; with few classes, each has its column."""
    inference: InferenceConfig = field(default_factory=InferenceConfig)
    """How the networks are run."""

    def __post_init__(self) -> None:
        require(self.num_images >= 1, f"num_images: {self.num_images} is not positive")
        require(self.first >= 0, f"first: {self.first} is negative")
        require(self.batch >= 1, f"batch: {self.batch} is not positive")
        require(self.num_actors is None or self.num_actors >= 1, f"num_actors: {self.num_actors} is not positive")
        if self.classes is not None:
            parse_classes(self.classes)

    @property
    def numbers(self) -> range:
        """Of the images."""
        return range(self.first, self.first + self.num_images)


@dataclass(frozen=True, kw_only=True, slots=True)
class UpscaleConfig:
    """How photos are upscaled: `sr3 upscale`."""

    recursive: bool = field(default=False, metadata=PLACEMENT)
    """Look into the folders of folders too; the outputs keep their structure."""
    format: Literal["png", "jpeg", "webp"] = "png"
    """Of the outputs. PNG and WebP keep transparency, which JPEG composites onto white; WebP has no grey. All keep the
    colour profile and apply the orientation; other metadata is left out."""
    quality: int | None = None
    """Of JPEG and WebP, 1 to 100; None takes 95."""
    schedule: str | None = None
    """A schedule file, the name of one of the run's, or a number of steps; None takes the best found, of most steps."""
    seed: int = 0
    """Of the noise: the same photo and seed give the same image."""
    tile: int | None = None
    """Side of the tiles that large outputs are computed in, pixels; None takes the side that a stage was trained on,
    at least 256. Larger ones cost memory, smaller ones time."""
    overlap: int | None = None
    """Pixels that neighbouring tiles share; None takes an eighth of the tile."""
    batch: int = field(default=1, metadata=PLACEMENT)
    """Tiles that go through the network together."""
    max_megapixels: float = field(default=400.0, metadata=PLACEMENT)
    """Largest output; beyond it a photo is refused, as it may be a decompression bomb."""
    num_actors: int | None = field(default=None, metadata=PLACEMENT)
    """Copies of the model that work side by side, each on a photo of its own; by default one a GPU of the cluster, or
    one."""
    inference: InferenceConfig = field(default=InferenceConfig(), metadata=ADDED)
    """How the networks are run."""

    def __post_init__(self) -> None:
        require(
            self.quality is None or 1 <= self.quality <= 100, f"quality: {self.quality} is not in 1..100, or left out"
        )
        require(self.quality is None or self.format != "png", "quality: png loses nothing; take jpeg or webp, or none")
        require(self.tile is None or self.tile >= 1, f"tile: {self.tile} is not positive")
        require(self.overlap is None or self.overlap >= 0, f"overlap: {self.overlap} is negative")
        require(self.batch >= 1, f"batch: {self.batch} is not positive")
        require(self.max_megapixels > 0, f"max_megapixels: {self.max_megapixels} is not positive")
        require(self.num_actors is None or self.num_actors >= 1, f"num_actors: {self.num_actors} is not positive")


def parse_classes(text: str) -> tuple[int, ...]:
    """Read 0-9,207: single classes and ranges with both ends, in that order.

    Raises:
        ConfigError: it is not that.
    """
    classes: list[int] = []
    for part in text.split(","):
        found = _RANGE.fullmatch(part.strip())
        first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
        if last < first:
            raise ConfigError(f"classes: {part.strip()!r} is neither a class nor a range such as 0-9")
        classes += range(first, last + 1)
    return tuple(classes)
