"""Whether a new model is better than the promoted one: its improvement on deciding images, and on sealed ones."""

from dataclasses import dataclass

import numpy as np

from sr3core.metrics.swaps import Difference
from tune.retraining.settings import PromotionConfig, PromotionObjective
from tune.retraining.spending import Parts, Turn
from tune.search.confirmation.gain import gain_of
from tune.search.objective.estimates import objective_of
from tune.search.objective.measurements import Measurements
from tune.search.objective.yardstick import Estimate, estimate_of, is_paired
from tune.search.settings import ObjectiveWeights

WEIGHTS = {
    "psnr": ObjectiveWeights(fid=0, psnr=1),
    "ssim": ObjectiveWeights(fid=0, ssim=1),
    "consistency": ObjectiveWeights(fid=0, consistency=1),
}


@dataclass(frozen=True, eq=False, slots=True)
class Yardstick:
    """What decides, and against which images."""

    estimate: Estimate
    weights: ObjectiveWeights
    references: np.ndarray
    """Features, (M, D)."""
    paired: bool
    """Whether they are of the originals of the inputs."""

    @property
    def groups(self) -> np.ndarray | None:
        """None: all images are independent."""
        return None

    def where(self, places: np.ndarray) -> "Yardstick":
        """The same for some of the images."""
        return Yardstick(
            self.estimate, self.weights, self.references[places] if self.paired else self.references, self.paired
        )

    def value(self, measured: Measurements) -> float:
        """The value of all images, lower is better."""
        return objective_of(measured, self.references, self, self.estimate)


@dataclass(frozen=True, slots=True)
class Decision:
    """The improvement of a model over the promoted one."""

    improvement: Difference
    """On the deciding images, at the turn's level."""
    level: float
    num_images: int
    sealed: float | None
    """The improvement on the sealed images, if the others would promote and there are any."""

    @property
    def is_better(self) -> bool:
        """Whether the whole interval lies above zero, and the sealed images do not say the opposite."""
        return self.improvement.low > 0 and (self.sealed is None or self.sealed > 0)


def yardstick_of(objective: PromotionObjective, parts: Parts) -> tuple[Estimate, ObjectiveWeights, bool]:
    """By what a number of deciding images can compare models: as a schedule search does.

    Returns:
        the estimate, its weights, and whether outputs are compared with their own originals.
    """
    count = len(parts.deciding)
    if objective in WEIGHTS:
        return "weighted", WEIGHTS[objective], True
    estimate = estimate_of("fid" if objective == "fid" else "kid", count)
    return estimate, ObjectiveWeights(), is_paired(count)


def decide(
    candidate: Measurements,
    promoted: Measurements,
    yardstick: Yardstick,
    parts: Parts,
    turn: Turn,
    config: PromotionConfig,
) -> Decision:
    """Compare two models, measured on the same images with the same noise."""
    level = turn.level(config)

    def improvement(places: tuple[int, ...], num_swaps: int) -> Difference:
        chosen = np.array(places, int)
        draws = [(candidate.where(chosen), promoted.where(chosen))]
        measure = yardstick.where(chosen)
        return gain_of(measure, draws, measure.estimate, num_swaps=num_swaps, level=level)

    found = improvement(parts.deciding, config.num_resamples)
    asks = found.low > 0 and len(parts.sealed) > 0
    return Decision(found, level, len(parts.deciding), improvement(parts.sealed, 1).value if asks else None)
