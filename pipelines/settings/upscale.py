"""Settings of `sr3 upscale`: how photos are upscaled."""

from dataclasses import dataclass, field
from typing import Literal

from pipelines.settings.inference import InferenceConfig
from pipelines.settings.locations import Location, ScheduleChoice
from sr3core.config import ADDED, PLACEMENT, PRESENCE
from sr3core.hyperparameters import require


@dataclass(frozen=True, kw_only=True, slots=True)
class UpscaleConfig:
    """How photos are upscaled: `sr3 upscale`."""

    recursive: bool = field(default=False, metadata=PLACEMENT)
    """Search subfolders as well; the outputs keep the folder structure."""
    format: Literal["png", "jpeg", "webp"] = "png"
    """File format of the outputs. PNG and WebP keep transparency, JPEG composites it onto white; WebP has no greyscale.
    All keep the colour profile and apply the EXIF orientation; other metadata is dropped."""
    quality: int | None = None
    """JPEG or WebP quality, 1 to 100; None takes 95."""
    schedule: ScheduleChoice | None = None
    """Inference schedule: a file, the name of one of the run's schedules, or a number of steps; None takes the best
    with the most steps, and before any search 10 steps of DDIM. 100 is the paper's budget. An end @GAMMA, such as
    100@0.1, starts from the input with noise of that level, and takes only the steps below it."""
    seed: int = 0
    """Seed for the noise; the same photo and seed give the same image."""
    tile: int | None = None
    """Side of the tiles that large outputs are computed in, pixels. Larger tiles need more memory, smaller ones more
    time; None takes the size that the stage was trained on, at least 256."""
    overlap: int | None = None
    """Pixels that neighbouring tiles share; None takes an eighth of the tile."""
    batch: int = field(default=1, metadata=PLACEMENT)
    """Tiles that pass through the network together."""
    max_megapixels: float = field(default=400.0, metadata=PLACEMENT)
    """Largest output in megapixels; a photo that would exceed it is rejected as a possible decompression bomb."""
    num_actors: int | None = field(default=None, metadata=PLACEMENT)
    """Copies of the model that work in parallel, each on one photo; None starts one per GPU of the cluster, at least
    one."""
    members: int = field(default=1, metadata=ADDED)
    """Fields: members of the ensemble, each with noise of its own; from two on, its mean and spread are written too."""
    static: Location | None = field(default=None, metadata=PRESENCE)
    """Fields: store with the static maps of the output's grid, for models that take some."""
    inference: InferenceConfig = field(default=InferenceConfig(), metadata=ADDED)
    """How the networks are run."""

    def __post_init__(self) -> None:
        require(
            self.quality is None or 1 <= self.quality <= 100, f"quality: {self.quality} is not in 1..100, or left out"
        )
        require(self.quality is None or self.format != "png", "quality: png loses nothing; take jpeg or webp, or none")
        require(self.tile is None or self.tile >= 1, f"tile: {self.tile} is not positive")
        require(self.overlap is None or self.overlap >= 0, f"overlap: {self.overlap} is negative")
        require(self.members >= 1, f"members: {self.members} is not positive")
        require(self.batch >= 1, f"batch: {self.batch} is not positive")
        require(self.max_megapixels > 0, f"max_megapixels: {self.max_megapixels} is not positive")
        require(self.num_actors is None or self.num_actors >= 1, f"num_actors: {self.num_actors} is not positive")
