"""Learned levels: the chain against that of sr3core, its gradient against differences, its end against a long chain."""

import numpy as np
import pytest
import torch

from sr3core.diffusion.sampling import estimator, sample
from sr3core.diffusion.schedules import InferenceSchedule, check_gammas
from sr3core.hyperparameters import SamplerConfig
from tests.tune.search.proposals.test_warm_start import SMALLEST, gaussian_probe
from tune.search.proposals.learned_levels import SOLVERS, Learned, learn_levels, short_chain
from tune.search.proposals.warm_start import NOISE_FIRST, candidate_levels

LEVELS = candidate_levels(SMALLEST, 6)


def log_snr_of(gammas: np.ndarray) -> torch.Tensor:
    return torch.tensor(np.log(gammas[1:]) - np.log1p(-gammas[1:]))


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_chain_is_that_of_the_solver(solver) -> None:
    probe, sampler = gaussian_probe(4), SamplerConfig(algorithm=solver)
    schedule = InferenceSchedule(gammas=tuple(LEVELS), sampler=sampler, name="even")
    expected = sample(probe.denoise, probe.x_up, probe.y_0.shape, schedule, probe.noise)
    estimate = estimator(probe.denoise, probe.x_up, sampler)
    with torch.no_grad():
        found = short_chain(estimate, probe.noise(probe.y_0.shape), log_snr_of(LEVELS), solver)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_gradient_is_that_of_the_levels(solver) -> None:
    probe = gaussian_probe(4)
    estimate = estimator(probe.denoise, probe.x_up, SamplerConfig(algorithm=solver, clip="none"))
    y_T = probe.noise(probe.y_0.shape)

    def end(log_snr: torch.Tensor) -> torch.Tensor:
        return short_chain(estimate, y_T, log_snr, solver).double().square().sum()

    log_snr = log_snr_of(LEVELS).requires_grad_()
    (gradient,) = torch.autograd.grad(end(log_snr), log_snr)
    for t in range(len(log_snr) - 1):
        shift = torch.zeros_like(log_snr)
        shift[t] = 0.02
        with torch.no_grad():
            difference = (end(log_snr + shift) - end(log_snr - shift)) / 0.04
        assert float(gradient[t]) == pytest.approx(float(difference), rel=0.02, abs=1e-3)


@pytest.fixture(scope="module")
def learned() -> dict[str, Learned]:
    return {solver: learn_levels(gaussian_probe(8), LEVELS, 1 - NOISE_FIRST, solver) for solver in SOLVERS}


@pytest.mark.parametrize("solver", SOLVERS)
def test_learned_levels_end_closer_to_the_exact_solution(learned, solver) -> None:
    """The flow of N(0, VARIANCE I) is known: y_0 = sqrt(VARIANCE) y_T, as gamma_T is almost 0."""
    found = learned[solver]
    check_gammas(found.gammas, SMALLEST)
    assert len(found.gammas) == len(LEVELS)
    assert found.gammas[-1] == pytest.approx(SMALLEST)
    assert found.gammas[1] < 1 - NOISE_FIRST
    assert found.loss < 0.5 * found.first_loss
    fresh = gaussian_probe(64)  # other images, other noise
    y_T = fresh.noise(fresh.y_0.shape)
    estimate = estimator(fresh.denoise, fresh.x_up, SamplerConfig(algorithm=solver))

    def error(gammas: np.ndarray) -> float:
        with torch.no_grad():
            end = short_chain(estimate, y_T, log_snr_of(gammas), solver)
        return float((end - 0.3 * y_T).double().square().mean())

    assert error(found.gammas) < 0.6 * error(LEVELS)
