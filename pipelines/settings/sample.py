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
    """How many."""
    first: int = field(default=0, metadata=PLACEMENT)
    """Number of the first; an image is a function of the run, the seed, its number and its class."""
    classes: str | None = None
    """Classes that the images have in turn, such as 0-9,207; by default all that the base model knows."""
    schedule: ScheduleChoice | None = None
    """A schedule file, the name of one of each stage's, or a number of steps; or one a stage, the base model's first:
    250,100,50. By default each stage's best found, of most steps."""
    seed: int = 0
    """Of the noise."""
    batch: int = field(default=8, metadata=PLACEMENT)
    """Images that go through the networks together."""
    num_actors: int | None = field(default=None, metadata=PLACEMENT)
    """Copies of the cascade that work side by side; by default one a GPU of the cluster, or one on its CPUs."""
    grid: Location | None = field(default=None, metadata=PLACEMENT)
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
