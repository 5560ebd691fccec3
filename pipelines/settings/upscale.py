"""Settings of `sr3 upscale`: how photos are upscaled."""

from dataclasses import dataclass, field
from typing import Literal

from pipelines.settings.inference import InferenceConfig
from pipelines.settings.locations import ScheduleChoice
from sr3core.config import ADDED, PLACEMENT
from sr3core.hyperparameters import require


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
    schedule: ScheduleChoice | None = None
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
