"""How many months of nightly retrainings promote a model: without a true gain, which is chance, and with one.

    python tests/benchmarks/promotion_by_chance.py [--months 100] [--objectives psnr kid]

Each month has a promoted model and 30 candidates, all drawn from one distribution of models, or the candidates from a
better one, measured on 160 held-out images, with the code that decides in `sr3 retrain`. The former rule is a 95%
interval every night, on the same images: of bootstrap resamples for PSNR, of random exchanges for KID.

Found with 100 months, by PSNR: 27 months promote without a gain by the former rule, 3 now; with one all do, and 89 now.
"""

import argparse
from collections.abc import Callable

import numpy as np

from sr3core.metrics.bootstrap import bootstrap_mean
from tune.retraining.decision import Yardstick, decide, yardstick_of
from tune.retraining.settings import PromotionConfig, PromotionObjective
from tune.retraining.spending import Parts, Turn, parts_of
from tune.search.confirmation.gain import gain_of
from tune.search.objective.measurements import Measurements

NIGHTS, DIM, REFERENCES = 30, 32, 256
KEYS = [f"image-{number:04d}" for number in range(160)]
OBJECTIVES: tuple[PromotionObjective, ...] = ("psnr", "kid")
GAINS = {"no true gain": 0.0, "a true gain": 1.0}
PSNR_GAIN, SHIFT, SHIFT_GAIN = 0.25, 0.4, 0.25


def model(month: int, number: int, gain: float) -> Measurements:
    """A model's measurements: PSNR around each image's difficulty, and features off by a shift."""
    generator = np.random.default_rng([month, number])
    difficulty = np.random.default_rng([month, 10_000]).normal(25, 3, len(KEYS))
    psnr = difficulty + gain * PSNR_GAIN + generator.normal(0, 0.7, len(KEYS))
    features = SHIFT - gain * SHIFT_GAIN + generator.normal(size=(len(KEYS), DIM))
    zeros = np.zeros(len(KEYS))
    return Measurements(features, psnr, zeros, zeros, zeros)


def yardstick(month: int, objective: PromotionObjective, parts: Parts) -> Yardstick:
    """What the month's models are judged by."""
    estimate, weights, paired = yardstick_of(objective, parts)
    references = np.random.default_rng([month, 20_000]).normal(size=(len(KEYS) if paired else REFERENCES, DIM))
    return Yardstick(estimate, weights, references, paired)


def as_before(month: int, objective: PromotionObjective, night: int, new: Measurements, old: Measurements) -> bool:
    """The former rule, blind to the nights before."""
    if objective == "psnr":
        return bootstrap_mean(new.psnr - old.psnr, num_resamples=400).low > 0
    judge = yardstick(month, objective, Parts(tuple(range(len(KEYS))), ()))
    return gain_of(judge, [(new, old)], judge.estimate, num_swaps=30).low > 0


def as_now(month: int, objective: PromotionObjective, night: int, new: Measurements, old: Measurements) -> bool:
    """What `sr3 retrain` decides."""
    turn = Turn(night)
    parts = parts_of(KEYS, turn)
    config = PromotionConfig(objective=objective, num_resamples=30)
    return decide(new, old, yardstick(month, objective, parts), parts, turn, config).is_better


def share_of_months(
    rule: Callable[[int, PromotionObjective, int, Measurements, Measurements], bool],
    objective: PromotionObjective,
    gain: float,
    months: int,
) -> float:
    """Share of months in which a rule promotes at least once."""

    def promotes(month: int) -> bool:
        old = model(month, 0, 0.0)
        return any(rule(month, objective, night, model(month, night, gain), old) for night in range(1, NIGHTS + 1))

    return float(np.mean([promotes(month) for month in range(months)]))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--months", type=int, default=100)
    parser.add_argument("--objectives", nargs="+", choices=OBJECTIVES, default=OBJECTIVES)
    options = parser.parse_args()
    months = options.months
    for objective in options.objectives:
        for name, gain in GAINS.items():
            before, now = (share_of_months(rule, objective, gain, months) for rule in (as_before, as_now))
            print(f"{objective:5s} {name:13s} months with a promotion: before {before:.1%}, now {now:.1%}", flush=True)


if __name__ == "__main__":
    main()
