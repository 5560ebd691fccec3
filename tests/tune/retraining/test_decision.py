"""A model is promoted for what it is, not by chance: on simulated nights, with the code that decides."""

from typing import Any

import numpy as np
import pytest

from sr3core.metrics.swaps import Difference
from tune.retraining.decision import Decision, Yardstick, decide, yardstick_of
from tune.retraining.settings import PromotionConfig
from tune.retraining.spending import Parts, Turn, parts_of
from tune.search.objective.measurements import Measurements
from tune.search.settings import ObjectiveWeights

KEYS = [f"image-{number:04d}" for number in range(160)]
DIM = 24
REFERENCES = np.random.default_rng(99).normal(size=(300, DIM))


def model(seed: int, fault: float, gain: float = 0.0) -> Measurements:
    """A model's outputs of the held-out images: off by a shift, with PSNRs around a mean."""
    generator = np.random.default_rng(seed)
    zeros = np.zeros(len(KEYS))
    difficulty = np.random.default_rng(5).normal(0, 3, len(KEYS))
    psnr = 25 + gain + difficulty + generator.normal(0, 0.5, len(KEYS))
    return Measurements(fault + generator.normal(size=(len(KEYS), DIM)), psnr, zeros, zeros, zeros)


def night(number: int, candidate: Measurements, promoted: Measurements, objective: Any) -> Decision:
    """The number-th comparison with a promoted model."""
    turn = Turn(number)
    parts = parts_of(KEYS, turn)
    estimate, weights, paired = yardstick_of(objective, parts)
    references = np.zeros((len(KEYS), 1)) if estimate == "weighted" else REFERENCES
    yardstick = Yardstick(estimate, weights, references, paired)
    return decide(candidate, promoted, yardstick, parts, turn, PromotionConfig(objective=objective, num_resamples=20))


@pytest.mark.parametrize("objective", ["psnr", "kid"])
def test_two_months_of_nights_without_a_gain_promote_nothing(objective: str) -> None:
    promoted = model(0, 0.3)
    assert not any(night(n, model(n, 0.3), promoted, objective).is_better for n in range(1, 61))


@pytest.mark.parametrize(("objective", "gain"), [("psnr", 0.4), ("kid", 0.0), ("fid", 0.0)])
def test_a_true_gain_is_found_at_the_end_of_a_month(objective: str, gain: float) -> None:
    found = night(30, model(1, 0.0, gain), model(2, 0.5), objective)
    assert found.is_better
    assert found.sealed is not None
    assert found.sealed > 0
    assert found.level > 0.998
    assert found.num_images < 0.7 * len(KEYS)


def test_the_sealed_images_can_refuse() -> None:
    """Better on all images that decide, worse on the sealed ones."""
    parts = parts_of(KEYS, Turn(1))
    candidate, promoted = model(1, 0.0), model(1, 0.0)
    candidate.psnr[:] += 1
    candidate.psnr[list(parts.sealed)] -= 2
    found = night(1, candidate, promoted, "psnr")
    assert found.improvement.low > 0
    assert found.sealed == pytest.approx(-1)
    assert not found.is_better


def test_sealed_images_are_not_looked_at_without_need() -> None:
    assert night(1, model(1, 0.5), model(2, 0.0), "kid").sealed is None


def test_an_interval_that_touches_zero_does_not_promote() -> None:
    assert not Decision(Difference(1.0, 1.0, 0.0, 2.0), 0.99, 10, None).is_better


@pytest.mark.parametrize(
    ("objective", "count", "estimate", "paired"),
    [
        ("fid", 40, "kid", False),
        ("fid", 100, "fid-infinity", False),
        ("fid", 10_000, "fid", True),
        ("kid", 100, "kid", False),
        ("ssim", 100, "weighted", True),
    ],
)
def test_models_are_judged_by_what_so_many_images_can_tell(
    objective: Any, count: int, estimate: str, paired: bool
) -> None:
    found = yardstick_of(objective, Parts(tuple(range(count)), ()))
    assert (found[0], found[2]) == (estimate, paired)
    if objective == "ssim":
        assert found[1] == ObjectiveWeights(fid=0, ssim=1)
