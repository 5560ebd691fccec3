"""Warm starts: the dynamic programme against brute force, the costs against the formulas that they stand for."""

from itertools import combinations, pairwise

import numpy as np
import pytest
import torch

from sr3core.diffusion.equations import predict_y_0, q_posterior, q_sample
from sr3core.diffusion.schedules import check_gammas
from tune.search.proposals.probe import Probe
from tune.search.proposals.warm_start import (
    NOISE_FIRST,
    candidate_levels,
    cheapest_path,
    elbo_costs,
    trajectory_costs,
)

SMALLEST = 4.4e-5
VARIANCE = 0.09
"""Of the Gaussian images whose denoiser is known exactly."""


def gaussian_probe(count: int = 64) -> Probe:
    """Images N(0, VARIANCE I) and their exact denoiser."""
    y_0 = torch.randn(count, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * VARIANCE**0.5

    def denoise(x_up: torch.Tensor | None, y_t: torch.Tensor, gamma: torch.Tensor) -> torch.Tensor:
        level = gamma.view(-1, 1, 1, 1)
        return ((1 - level).sqrt() / (level * VARIANCE + 1 - level)).float() * y_t  # E[epsilon | y_t]

    return Probe(denoise=denoise, x_up=torch.zeros_like(y_0), y_0=y_0, seeds=tuple(range(count)))


@pytest.mark.parametrize("num_steps", [1, 2, 3, 5])
def test_the_path_is_the_cheapest_of_all(num_steps: int) -> None:
    costs = np.random.default_rng(0).random((8, 8))
    path = cheapest_path(costs, num_steps)
    everything = [(0, *inner, 7) for inner in combinations(range(1, 7), num_steps - 1)]
    totals = [sum(costs[s, t] for s, t in pairwise(way)) for way in everything]
    assert tuple(path) == everything[int(np.argmin(totals))]


def test_candidates_fall_evenly_in_log_snr() -> None:
    levels = check_gammas(candidate_levels(SMALLEST, 40), SMALLEST)
    assert levels[1] == pytest.approx(1 - NOISE_FIRST)
    assert levels[-1] == SMALLEST
    assert len(levels) == 41
    steps = np.diff(np.log(levels[1:] / (1 - levels[1:])))
    np.testing.assert_allclose(steps, steps[0], rtol=1e-6)


def test_elbo_costs_are_divergences_of_the_reverse_steps() -> None:
    """Each cost is KL(q(y_s | y_t, y_0), p(y_s | y_t)), worked out from Equation (4)'s means and variance."""
    probe = gaussian_probe()
    levels = candidate_levels(SMALLEST, 10)
    costs = elbo_costs(probe, levels)
    noise = probe.noise
    for t in range(1, 11):
        level = torch.full((64,), levels[t], dtype=torch.float64)
        y_t = q_sample(probe.y_0, level, noise(probe.y_0.shape))
        y_0_hat = predict_y_0(y_t, level, probe.denoise(None, y_t, level)).clamp(-1, 1)
        for s in range(1, t):
            before = torch.full((64,), levels[s], dtype=torch.float64)
            true, variance = q_posterior(probe.y_0.double(), y_t.double(), before, level)
            guess, _ = q_posterior(y_0_hat.double(), y_t.double(), before, level)
            divergence = ((true - guess) ** 2 / (2 * variance.double())).flatten(1).sum(1).mean()
            assert costs[s, t] == pytest.approx(float(divergence), rel=1e-4)
    assert costs[0, 1] == 0
    assert np.all(np.isinf(costs[0, 2:]))


def test_one_fine_step_stays_on_the_trajectory_and_a_coarse_one_leaves_it() -> None:
    levels = candidate_levels(SMALLEST, 30)
    costs = trajectory_costs(gaussian_probe(4), levels)
    for t in range(1, 31):
        assert costs[t - 1, t] == pytest.approx(0, abs=1e-5)
    assert costs[1, 30] > costs[15, 30] > 1e-3


@pytest.mark.parametrize("costs_of", [elbo_costs, trajectory_costs])
def test_a_path_is_better_than_an_even_one(costs_of) -> None:
    levels = candidate_levels(SMALLEST, 40)
    costs = costs_of(gaussian_probe(8), levels)
    path = cheapest_path(costs, 6)
    assert path[0] == 0
    assert path[-1] == 40
    assert len(path) == 7
    even = np.concatenate([[0], np.round(np.linspace(1, 40, 6)).astype(int)])

    def total(way: np.ndarray) -> float:
        return float(sum(costs[s, t] for s, t in pairwise(way)))

    assert total(path) < 0.9 * total(even)
