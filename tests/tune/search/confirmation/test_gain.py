"""A winner's gain over the best default: its value and interval, and what is published because of it."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from sr3core.hyperparameters import SamplerConfig
from tests.tune.search.tiny_search import make_config
from tune.search.confirmation.gain import exchanged, gain_of, measure_gains, pairs_of, published_for
from tune.search.objective.measurements import Measurements
from tune.search.objective.references import with_references
from tune.search.objective.task import load_task
from tune.search.records.search_report import Confirmation, Gain, TrialRecord, describe_gain
from tune.search.settings import ObjectiveWeights

COUNT, DIM = 64, 32


class References:
    """What a gain reads of a task."""

    paired = False
    groups = None
    weights = ObjectiveWeights(fid=0, psnr=1)

    def __init__(self) -> None:
        self.references = np.random.default_rng(9).normal(size=(256, DIM))


def drawn(shift: float, seed: int, psnr: float = 20.0) -> Measurements:
    """Outputs whose distribution is off by a shift."""
    generator = np.random.default_rng(seed)
    zeros = np.zeros(COUNT)
    features = shift + generator.normal(size=(COUNT, DIM))
    return Measurements(features, psnr + generator.normal(size=COUNT), zeros, zeros, zeros)


def trial(name: str, objective: float | None, origin: Any = "search", budget: int = 4) -> TrialRecord:
    return TrialRecord(
        name=name,
        origin=origin,
        status="done" if objective is not None else "failed",
        num_steps=budget,
        num_evaluations=budget,
        budget=budget,
        gammas=(1.0, 0.1),
        sampler=SamplerConfig(),
        objective=objective,
    )


@pytest.mark.parametrize("estimate", ["fid-infinity", "kid"])
def test_a_better_sampler_gains_surely_and_an_equal_one_does_not(estimate: Any) -> None:
    task: Any = References()
    better = gain_of(task, [(drawn(0.0, seed), drawn(0.3, seed + 100)) for seed in range(2)], estimate, num_swaps=20)
    assert better.low > 0
    equal = gain_of(task, [(drawn(0.0, seed), drawn(0.0, seed + 100)) for seed in range(2)], estimate, num_swaps=20)
    assert equal.low < 0 < equal.high


def test_the_gain_of_a_mean_is_the_mean_difference_over_images_and_noise() -> None:
    task: Any = References()
    draws = [(drawn(0, 1, psnr=21.0), drawn(0, 2)), (drawn(0, 3, psnr=22.0), drawn(0, 4))]
    gaps = np.mean([winner.psnr - rival.psnr for winner, rival in draws], axis=0)
    found = gain_of(task, draws, "weighted", num_swaps=400)
    assert found.value == pytest.approx(gaps.mean())
    assert found.error == pytest.approx(np.sqrt(np.square(gaps).sum()) / COUNT, rel=0.1)


def test_an_equal_sampler_wins_by_chance_as_rarely_as_the_level_says() -> None:
    """The lower end of a two-sided 95% interval lies above zero in 2.5% of draws."""
    task: Any = References()
    wins = [
        gain_of(task, [(drawn(0, 2 * seed), drawn(0, 2 * seed + 1))], "kid", num_swaps=20).low > 0
        for seed in range(100)
    ]
    assert np.mean(wins) <= 0.07


def test_only_the_masked_images_are_exchanged() -> None:
    ours, theirs, mask = drawn(0, 1), drawn(0, 2), np.arange(COUNT) < 5
    found = exchanged(ours, theirs, mask)
    np.testing.assert_array_equal(found.features[:5], theirs.features[:5])
    np.testing.assert_array_equal(found.psnr[5:], ours.psnr[5:])


def test_a_winner_is_compared_with_the_best_default_of_its_budget() -> None:
    judged = [
        *(trial("found", 3.0), trial("bad", 9.0, "default"), trial("good", 4.0, "default")),
        *(trial("dear", 1.0, "default", budget=9), trial("lost", None, "default")),
    ]
    assert [(a.name, b.name) for a, b in pairs_of(judged, {"found"})] == [("found", "good")]
    assert pairs_of(judged, {"good"}) == [], "a default that wins is not compared with itself"


SURE = Gain(name="found", default="good", value=2.0, low=1.0, high=3.0, level=0.95, num_seeds=3, second_opinion=0.5)


@pytest.mark.parametrize(
    ("gain", "published", "words"),
    [
        (SURE, "found", "found gains +2 [+1, +3] over the best default good, with 3 draws of noise: confirmed"),
        (replace(SURE, low=-0.5), "good", "which does not lie above 0: refuted, good is published"),
        (replace(SURE, second_opinion=-0.25), "good", "which is -0.25 by KID: refuted, good is published"),
    ],
)
def test_a_refuted_winner_is_not_published(gain: Gain, published: str, words: str) -> None:
    judged = (trial("found", 3.0), trial("bad", 9.0, "default"), trial("good", 4.0, "default"))
    sure = Confirmation(split="test", num_images=64, label="", trials=judged, gains=(gain,))
    assert published_for(judged[0], sure) == published
    assert words in describe_gain(gain)


def test_without_a_confirmation_nothing_is_refuted() -> None:
    assert published_for(trial("found", 3.0), None) == "found"


class Broken(torch.nn.Module):
    """A network whose chain diverges."""

    size_multiple = 2

    def forward(self, x_up: Any, y_t: torch.Tensor, gamma: Any, classes: Any = None) -> torch.Tensor:
        return y_t * float("nan")


def test_a_winner_that_diverges_with_other_noise_is_not_confirmed_and_ends_no_search(
    tiny_run: Any, ray_session: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(num_images=16, confirm_seeds=2)
    task = with_references(load_task(tiny_run.stage, config, confirm=True), tiny_run.stage, config, confirm=True)
    winner, rival = (
        replace(trial(name, 1.0, origin, budget=2), gammas=(1.0, 0.5, 0.01))
        for name, origin in (("found", "search"), ("good", "default"))
    )
    monkeypatch.setattr(
        "tune.search.confirmation.gain.with_noise",
        lambda task, number: replace(task, network=Broken(), identity="broken") if number else task,
    )
    assert measure_gains(task, [(winner, rival)], config) == ()
