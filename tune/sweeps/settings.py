"""Settings of `sr3 sweep`: how trainings with different settings compete."""

from dataclasses import dataclass, field

from sr3core.config import PLACEMENT
from sr3core.hyperparameters import require


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepConfig:
    """How the trainings of a sweep compete: `sr3 sweep`."""

    num_rungs: int = 3
    """Rungs of successive halving: a training is first compared at num_steps / rung_factor ** (num_rungs - 1) steps,
    and continues only if its held-out loss is among the lowest 1 / rung_factor there. 1 trains all to the end."""
    rung_factor: int = 3
    """Ratio between the numbers of steps of neighbouring rungs."""
    num_concurrent: int | None = field(default=None, metadata=PLACEMENT)
    """Trainings that run at once; by default as many as fit on the cluster."""
    max_retries: int = field(default=1, metadata=PLACEMENT)
    """How often a training whose process died is restarted, from its newest checkpoint, before it counts as failed."""

    def __post_init__(self) -> None:
        require(self.num_rungs >= 1, f"num_rungs: {self.num_rungs} is not positive")
        require(self.rung_factor >= 2, f"rung_factor: {self.rung_factor} must be at least 2")
        require(
            self.num_concurrent is None or self.num_concurrent >= 1,
            f"num_concurrent: {self.num_concurrent} is not positive",
        )
        require(self.max_retries >= 0, f"max_retries: {self.max_retries} is negative")

    def rungs(self, num_steps: int) -> tuple[int, ...]:
        """Numbers of steps at which trainings are compared, rising; num_steps is the last.

        Raises:
            ConfigError: there are too few steps for so many rungs.
        """
        found = tuple(num_steps // self.rung_factor**k for k in reversed(range(self.num_rungs)))
        require(
            found[0] >= 1, f"num_rungs: {num_steps} steps are too few for {self.num_rungs} rungs of {self.rung_factor}"
        )
        return found
