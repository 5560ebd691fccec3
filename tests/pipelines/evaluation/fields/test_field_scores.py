"""Scores with intervals from the terms of samples: estimates, resampled groups, and what covers the truth."""

import numpy as np
import pytest
import torch

from pipelines.evaluation.fields.forecasts import ENSEMBLE, REGRESSION, TRUTH, bin_edges
from pipelines.evaluation.fields.scores import Scores
from sr3core.metrics.ensemble import spread_skill_ratio
from sr3core.metrics.field_terms import energy_terms, forecast_terms
from sr3core.samples.spec import Channel, SampleSpec

CHANNEL = Channel(name="t2m", units="K", minimum=-4.0, maximum=4.0)
SPEC = SampleSpec(high=(CHANNEL,), low=(CHANNEL,))


def terms_of(members, truth):
    found = forecast_terms(members, truth) | {"energy": energy_terms(members, truth)}
    terms = {name: term.numpy() for name, term in found.items()}
    (edges,) = bin_edges(SPEC)
    counts = [np.histogram(members[:, row].numpy(), edges)[0] for row in range(len(truth))]
    return {**terms, "histogram": np.stack(counts)[:, None]}


def scores_of(num_samples, seed=0, spread=1.0, groups=None):
    generator = torch.Generator().manual_seed(seed)
    truth = torch.randn(num_samples, 1, 8, 8, generator=generator)
    members = spread * torch.randn(8, num_samples, 1, 8, 8, generator=generator)
    terms = {
        ENSEMBLE: terms_of(members, truth),
        REGRESSION: terms_of(torch.zeros_like(truth)[None], truth),
        TRUTH: terms_of(truth[None], truth),
    }
    names = groups or [str(number) for number in range(num_samples)]
    return Scores(terms, names, SPEC), members, truth


def test_an_exact_sampler_is_found_right():
    scores, members, truth = scores_of(40)
    found = scores.methods()[ENSEMBLE]["t2m"]
    assert found["spread_skill"]["mean"] == pytest.approx(spread_skill_ratio(members, truth))
    assert found["spread_skill"]["low"] < 1 < found["spread_skill"]["high"]
    assert found["crps"]["mean"] == pytest.approx(np.pi**-0.5, rel=0.05)
    assert scores.ranks()["t2m"] == pytest.approx([1 / 9] * 9, abs=0.02)
    assert set(scores.methods()[ENSEMBLE]["all"]) == {"energy"}


def test_too_much_spread_is_seen_and_costs():
    right, wide = scores_of(40)[0], scores_of(40, spread=3.0)[0]
    ours, theirs = (scores.methods()[ENSEMBLE]["t2m"] for scores in (right, wide))
    assert theirs["spread_skill"]["low"] > 1.5
    assert theirs["crps"]["low"] > ours["crps"]["high"]
    assert wide.ranks()["t2m"][0] < 0.05


def test_differences_are_of_the_same_samples():
    scores, _, _ = scores_of(40)
    gap = scores.differences()[REGRESSION]["t2m"]["crps"]
    found = scores.methods()
    assert gap["mean"] == pytest.approx(
        found[REGRESSION]["t2m"]["crps"]["mean"] - found[ENSEMBLE]["t2m"]["crps"]["mean"]
    )
    alone = found[REGRESSION]["t2m"]["crps"]
    assert gap["low"] > 0
    assert gap["high"] - gap["low"] < alone["high"] - alone["low"] + 0.05


def test_intervals_cover_what_is_true():
    covered = 0
    for seed in range(60):
        found = scores_of(30, seed=seed)[0].methods()[ENSEMBLE]["t2m"]["crps"]
        covered += found["low"] < np.pi**-0.5 < found["high"]
    assert 48 <= covered <= 60


def test_few_groups_have_no_interval_and_groups_are_resampled_whole():
    few = scores_of(40, groups=[str(number % 4) for number in range(40)])[0]
    assert few.num_groups == 4
    assert set(few.methods()[ENSEMBLE]["t2m"]["crps"]) == {"mean"}


def test_quantiles_are_those_of_the_values():
    scores, members, truth = scores_of(40)
    for name, values in ((ENSEMBLE, members), (TRUTH, truth)):
        expected = np.quantile(values.numpy(), [0.1, 0.5, 0.9])
        assert scores.quantiles()[name]["t2m"][2:5] == pytest.approx(expected, abs=0.01)
