"""Settings of `sr3 sample`: which images are drawn from noise, and how."""

import re
from dataclasses import dataclass, field

from pipelines.settings.inference import InferenceConfig
from pipelines.settings.locations import Location, ScheduleChoice
from sr3core.config import PLACEMENT
from sr3core.errors import ConfigError
from sr3core.hyperparameters import require

_RANGE = re.compile(r"(\d+)(?:-(\d+))?")


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleConfig:
    """Which images are drawn from noise, and how: `sr3 sample`."""

    num_images: int = field(default=16, metadata=PLACEMENT)
    """Number of images to draw."""
    first: int = field(default=0, metadata=PLACEMENT)
    """Number of the first image. An image is a function of the run, the seed, its number and its class."""
    classes: str | None = None
    """Classes to draw in turn, such as 0-9,207; None takes every class of the base model."""
    schedule: ScheduleChoice | None = None
    """Inference schedule: a file, the name of a schedule that every stage has, or a number of steps; or one for each
    stage, the base model's first: 250,100,50. None takes each stage's best with the most steps. An end @GAMMA starts
    a stage from its input with noise of that level: 250,100@0.1,50@0.1."""
    seed: int = 0
    """Seed for the noise."""
    batch: int = field(default=8, metadata=PLACEMENT)
    """Images that pass through the networks together."""
    num_actors: int | None = field(default=None, metadata=PLACEMENT)
    """Copies of the cascade that work in parallel; None starts one per GPU of the cluster, or one on its CPUs."""
    grid: Location | None = field(default=None, metadata=PLACEMENT)
    """PNG file that shows the first images, at most a hundred, side by side; few classes get a column each."""
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
        """Numbers of the images to draw."""
        return range(self.first, self.first + self.num_images)


def parse_classes(text: str) -> tuple[int, ...]:
    """Parse single classes and inclusive ranges such as 0-9,207, keeping their order.

    Raises:
        ConfigError: a part is neither a class nor a range.
    """
    classes: list[int] = []
    for part in text.split(","):
        found = _RANGE.fullmatch(part.strip())
        first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
        if last < first:
            raise ConfigError(f"classes: {part.strip()!r} is neither a class nor a range such as 0-9")
        classes += range(first, last + 1)
    return tuple(classes)
