"""Settings of `sr3 evaluate`: which held-out images a run is measured on, and how they are sampled."""

from dataclasses import dataclass, field

from pipelines.settings.sampling import InferenceConfig
from pipelines.settings.stages import Split
from sr3core.config import ADDED, PLACEMENT
from sr3core.hyperparameters import require


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluateConfig:
    """Which held-out images a run is measured on, and how they are sampled."""

    split: Split = "test"
    """Part of the run's data."""
    limit: int | None = None
    """At most so many images, the first of the split; None takes all."""
    schedule: str | None = None
    """Inference schedule: a file, the name of one of the run's, or a number of steps; None takes the best found."""
    seed: int = 0
    """Of the noise."""
    num_seeds: int = field(default=4, metadata=ADDED)
    """Samples that SR3 draws of each of the first held-out images, each with other noise, for their diversity; 1: no
    diversity."""
    num_actors: int | None = field(default=None, metadata=PLACEMENT)
    """Copies of the models that work side by side, one CPU each; by default one a GPU of the cluster, or one."""
    inference: InferenceConfig = field(default_factory=InferenceConfig)
    """How the networks are run."""

    def __post_init__(self) -> None:
        require(self.limit is None or self.limit >= 2, f"limit: {self.limit} is less than 2")
        require(self.num_seeds >= 1, f"num_seeds: {self.num_seeds} is not positive")
        require(self.num_actors is None or self.num_actors >= 1, f"num_actors: {self.num_actors} is not positive")
