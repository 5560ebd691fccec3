"""Schedules found with a few network evaluations and no FID, as starting points for the search.

Two methods give every step between two of M candidate levels a cost and find the N steps of least total cost by
dynamic programming; they differ in the cost. The third one learns the levels (learned_levels.py).
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

from sr3core.diffusion.equations import q_sample
from sr3core.diffusion.guidance import as_denoiser
from sr3core.diffusion.residual import residual_of
from sr3core.diffusion.sampling import estimator
from sr3core.diffusion.schedules import InferenceSchedule
from sr3core.diffusion.solvers import Step, ddim_step
from sr3core.hyperparameters import SamplerConfig
from sr3core.images.pixels import to_float
from sr3core.images.resize import upsample
from sr3core.randomness import derive_seed
from sr3core.regression import condition
from sr3core.upscaling.tiled_network import for_whole_images
from tune.search.objective.evaluator import pick_device
from tune.search.objective.measurements import Task
from tune.search.proposals.learned_levels import SOLVERS, learn_levels
from tune.search.proposals.probe import Probe
from tune.search.proposals.space import make_schedule
from tune.search.settings import WarmStart

NUM_CANDIDATES = 40
"""Smallest number of candidate levels; three times the steps where that is more."""
NUM_IMAGES = 4
"""Each has thousands of values, so few images estimate the mean errors well."""
NOISE_FIRST = 1e-4
"""1 - gamma of the cleanest candidate."""


Found = tuple[np.ndarray, SamplerConfig]
"""Levels, (N + 1,), and the sampler that they are for."""
Method = Callable[[Probe, Sequence[int], float], Iterator[Found]]
"""(probe, numbers of steps, smallest gamma) -> levels for each number of steps."""


def candidate_levels(smallest_gamma: float, count: int) -> np.ndarray:
    """Candidates gamma[0] = 1 and count more, even in log SNR, falling to smallest_gamma: (count + 1,)."""
    first, last = (np.log(gamma / (1 - gamma)) for gamma in (1 - NOISE_FIRST, smallest_gamma))
    inner = 1 / (1 + np.exp(-np.linspace(first, last, count)))
    inner[-1] = smallest_gamma
    return np.concatenate([[1.0], inner])


def cheapest_path(costs: np.ndarray, num_steps: int) -> np.ndarray:
    """The path from the last candidate to candidate 0 in num_steps steps of least total cost.

    Args:
        costs: costs[s, t], of a step from candidate t to candidate s < t, (M, M); the rest is not read.
        num_steps: N, at most M - 1.

    Returns:
        The N + 1 candidates, rising: 0 first, M - 1 last.
    """
    size = len(costs)
    assert 1 <= num_steps < size, "there are enough candidates"
    allowed = np.where(np.triu(np.ones((size, size), bool), 1), costs, np.inf)  # downwards in t only
    best = np.full(size, np.inf)
    best[0] = 0.0
    origins = []
    for _ in range(num_steps):
        through = best[:, None] + allowed  # (s, t): best way from s to 0, and the step t -> s
        origins.append(through.argmin(axis=0))
        best = through.min(axis=0)
    path = [size - 1]
    for origin in reversed(origins):
        path.append(int(origin[path[-1]]))
    return np.array(path[::-1])


@torch.inference_mode()
def elbo_costs(probe: Probe, levels: np.ndarray) -> np.ndarray:
    """Nats that a step costs in the variational bound: Watson et al. (2021), L(t, s), (M, M).

    With the posterior's variance, the divergence of the reverse step t -> s from the true one is
    (SNR_s - SNR_t) / 2 |y_0 - y_0_hat(y_t)|^2 for SNR = gamma / (1 - gamma), so that one evaluation per level gives all
    steps from it. The last step, whose SNR is infinite, is the same for all and costs nothing here; only candidate 1
    may take it.
    """
    error = np.zeros(len(levels))
    noise = probe.noise
    estimate = estimator(probe.denoise, probe.x_up, SamplerConfig(), residual=probe.residual)
    for t, gamma in enumerate(levels[1:], start=1):
        level = torch.full((len(probe.y_0),), gamma, dtype=torch.float64, device=probe.y_0.device)
        y_t = q_sample(probe.y_0, level, noise(probe.y_0.shape))
        error[t] = float((probe.y_0 - estimate(y_t, gamma).y_0_hat).square().flatten(1).sum(1).double().mean())
    snr = np.append(0.0, levels[1:] / (1 - levels[1:]))
    costs = 0.5 * (snr[:, None] - snr[None, :]) * error[None, :]
    costs[0], costs[0, 1] = np.inf, 0.0
    return costs


@torch.inference_mode()
def trajectory_costs(probe: Probe, levels: np.ndarray) -> np.ndarray:
    """How far one DDIM step leaves the trajectory of many: GITS (Chen et al., 2024), (M, M).

    A step t -> s is taken from the fine trajectory's y_t with the direction found there, and compared with the fine
    trajectory's y_s, in units where the noise is added to an unscaled image (y / sqrt(gamma)).
    """
    estimate = estimator(probe.denoise, probe.x_up, SamplerConfig(algorithm="ddim"), residual=probe.residual)
    state = probe.noise(probe.y_0.shape)
    zero = torch.zeros_like(state)
    fine, found = [state], []
    for t in range(len(levels) - 1, 0, -1):
        found.append(estimate(fine[-1], levels[t]))
        fine.append(ddim_step(Step(levels[t], levels[t - 1], zero), found[-1]))
    fine.reverse()  # fine[t] is the trajectory at level t
    found.reverse()  # found[t - 1] is the network's output there
    costs = np.full((len(levels), len(levels)), np.inf)
    for t in range(1, len(levels)):
        for s in range(t):
            there = ddim_step(Step(levels[t], levels[s], zero), found[t - 1])
            gap = (there - fine[s]).flatten(1).double().norm(dim=1).mean()
            costs[s, t] = float(gap) / np.sqrt(levels[s])
    return costs


def _planned(costs_of: Callable[[Probe, np.ndarray], np.ndarray], sampler: SamplerConfig) -> Method:
    """The method that finds schedules by dynamic programming on a cost."""

    def find(probe: Probe, steps: Sequence[int], smallest_gamma: float) -> Iterator[Found]:
        levels = candidate_levels(smallest_gamma, max(NUM_CANDIDATES, 3 * max(steps)))
        costs = costs_of(probe, levels)
        for num_steps in steps:
            yield levels[cheapest_path(costs, num_steps)], sampler

    return find


def _learned(probe: Probe, steps: Sequence[int], smallest_gamma: float) -> Iterator[Found]:
    """For each number of steps the solver whose learned levels end closest to a long chain."""
    for num_steps in steps:
        even = candidate_levels(smallest_gamma, num_steps)
        found = [learn_levels(probe, even, 1 - NOISE_FIRST, solver) for solver in SOLVERS]
        best = min(found, key=lambda learned: learned.loss)
        yield best.gammas, SamplerConfig(algorithm=best.algorithm)


_METHODS: dict[WarmStart, Method] = {
    "elbo": _planned(elbo_costs, SamplerConfig(variance=0.0)),
    "gits": _planned(trajectory_costs, SamplerConfig(algorithm="ddim")),
    "learned": _learned,
}


def warm_starts(
    task: Task, method: WarmStart, steps: tuple[int, ...], smallest_gamma: float, cpus: float, gpus: float
) -> list[InferenceSchedule]:
    """A schedule for each number of steps, as a Ray task.

    Args:
        task: whose network and first held-out images are used.
        method: elbo is Watson et al.'s, for the ancestral sampler with the posterior's variance; gits is for DDIM;
            learned is for DDIM or DPM-Solver++(2M), whichever comes closer to a long chain.
        steps: numbers of steps.
        smallest_gamma: where the chains start.
        cpus, gpus: reserved for the task.
    """
    torch.set_num_threads(max(1, int(cpus)))
    found = _METHODS[method](probe_of(task, pick_device(gpus)), steps, smallest_gamma)
    return [make_schedule(gammas, sampler, method, smallest_gamma) for gammas, sampler in found]


def probe_of(task: Task, device: str) -> Probe:
    """The first images of a task, and its network, whose parameters get no gradients."""
    low, high = (to_float(images[:NUM_IMAGES].copy()).to(device) for images in (task.low, task.high))
    network = for_whole_images(task.model, task.network.to(device).eval().requires_grad_(False))
    mean = None if task.mean is None else for_whole_images(task.model, task.mean.to(device).eval())
    x_up = condition(task.model, upsample(low, task.model.high_size, task.model.upsampling), mean)
    residual = residual_of(task.model, x_up)
    return Probe(
        denoise=as_denoiser(task.model, network),
        x_up=x_up,
        y_0=high if residual is None else residual.of(high),
        seeds=tuple(derive_seed(task.seed, "warm start", key) for key in task.keys[:NUM_IMAGES]),
        residual=residual,
    )
