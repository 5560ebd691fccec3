"""Noise levels that are learned: a chain of few steps is fitted to a long one of the same network, by gradients.

After LD3 (Tong et al., 2025, arXiv:2405.15506): the levels of a deterministic solver are the parameters; the distance
between the ends of both chains, from the same noise, is the loss. Each evaluation of the network is computed again in
the backward pass, so that the memory is that of one evaluation, whatever the number of steps.
"""

import logging
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from sr3core.diffusion.sampling import LevelEstimator, estimator
from sr3core.hyperparameters import SamplerAlgorithm, SamplerConfig
from tune.search.proposals.probe import Probe

SOLVERS: tuple[SamplerAlgorithm, ...] = ("ddim", "dpmpp_2m")
"""Solvers whose levels are learned: deterministic, with one evaluation a step."""
NUM_TEACHER_STEPS = 100
"""Steps of the long chain, or four times those of the short one where that is more."""
NUM_UPDATES = 40
"""Updates of the levels; each costs about four times the evaluations of the short chain."""
LEARNING_RATE = 0.05
"""Of Adam, for the logarithms of the widths of the steps."""
_SHARE = 1e-3
"""Smallest part of the range of log SNR that a step begins with."""
log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False, slots=True)
class Learned:
    """Levels, and how far their chain ends from the long one."""

    algorithm: SamplerAlgorithm
    """The solver."""
    gammas: np.ndarray
    """gamma[0] = 1 and N more, falling: (N + 1,)."""
    loss: float
    """Mean squared distance of the ends, in units of what the chain draws."""
    first_loss: float
    """That of the levels it began with."""


def learn_levels(probe: Probe, start: np.ndarray, cleanest: float, algorithm: SamplerAlgorithm) -> Learned:
    """Fit the levels of a solver to a long chain.

    Args:
        probe: the images and the network; its parameters are left as they are.
        start: levels to begin with, gamma[0] = 1 and N more, falling, (N + 1,). The last one stays, since it is where
            chains start.
        cleanest: largest level that the network may be evaluated at, below 1.
        algorithm: one of SOLVERS.

    Returns:
        The best levels of all updates, those of the start included.
    """
    sampler = SamplerConfig(algorithm=algorithm)
    estimate = estimator(probe.denoise, probe.x_up, sampler, residual=probe.residual)
    y_T = probe.noise(probe.y_0.shape)
    target = _long_chain(estimate, y_T, start[-1], cleanest, max(NUM_TEACHER_STEPS, 4 * len(start)))
    levels = _Levels(start, cleanest)
    optimizer = torch.optim.Adam([levels.logits], lr=LEARNING_RATE)
    found: list[tuple[float, np.ndarray]] = []
    for _ in range(NUM_UPDATES + 1):
        log_snr = levels.log_snr()
        loss = (short_chain(estimate, y_T, log_snr, algorithm) - target).double().square().mean()
        found.append((loss.item(), levels.gammas(log_snr)))
        optimizer.zero_grad()
        (levels.logits.grad,) = torch.autograd.grad(loss, levels.logits)
        optimizer.step()
    best_loss, gammas = min(found, key=lambda each: each[0])
    log.info("learned %s: %.3g, at the start %.3g", algorithm, best_loss, found[0][0])
    return Learned(algorithm, gammas, best_loss, found[0][0])


class _Levels:
    """Levels of which the noisiest is fixed, by the logarithms of the widths of the steps between them.

    Args:
        gammas: the levels to begin with, (N + 1,).
        cleanest: the upper end of the range that the N steps, and what is left above them, share.
    """

    def __init__(self, gammas: np.ndarray, cleanest: float) -> None:
        rising = np.append(_log_snr(gammas[:0:-1]), _log_snr(np.array([cleanest])))  # from the noisiest: (N + 1,)
        self._lowest, self._range = rising[0], rising[-1] - rising[0]
        widths = np.maximum(np.diff(rising) / self._range, _SHARE)
        self.logits = torch.tensor(np.log(widths), dtype=torch.float64, requires_grad=True)

    def log_snr(self) -> Tensor:
        """Log SNR of the levels 1 to N, falling: (N,) float64."""
        above = torch.softmax(self.logits, 0)[:-1].cumsum(0) * self._range  # above the noisiest: (N - 1,)
        return torch.cat([above.new_zeros(1), above]).flip(0) + self._lowest

    def gammas(self, log_snr: Tensor) -> np.ndarray:
        """The levels 0 to N: (N + 1,)."""
        return np.append(1.0, torch.sigmoid(log_snr.detach()).numpy())


def short_chain(estimate: LevelEstimator, y_t: Tensor, log_snr: Tensor, algorithm: SamplerAlgorithm) -> Tensor:
    """y_0 of a chain whose levels may have gradients.

    It is DPM-Solver++(2M) of Lu et al. (2022), whose first-order form is DDIM; the solvers of sr3core take levels as
    numbers of the host.

    Args:
        estimate: the network.
        y_t: y_T, (B, C, H, W).
        log_snr: log SNR of the levels 1 to N, falling, (N,).
        algorithm: one of SOLVERS.
    """
    older, older_width = None, None
    for t in range(len(log_snr) - 1, -1, -1):
        level = torch.sigmoid(log_snr[t]).to(y_t.device)
        y_0_hat = _estimate_y_0(estimate, y_t, level)
        if t == 0:
            return y_0_hat
        width = (log_snr[t - 1] - log_snr[t]) / 2
        target = y_0_hat
        if algorithm == "dpmpp_2m" and older is not None and older_width is not None:
            target = y_0_hat + _times(width / (2 * older_width), y_0_hat - older)
        keep = (torch.sigmoid(-log_snr[t - 1]) / torch.sigmoid(-log_snr[t])).sqrt()
        y_t = _times(keep, y_t) - _times(torch.sigmoid(log_snr[t - 1]).sqrt() * torch.expm1(-width), target)
        older, older_width = y_0_hat, width
    return y_t


def _estimate_y_0(estimate: LevelEstimator, y_t: Tensor, level: Tensor) -> Tensor:
    def compute(y_t: Tensor, level: Tensor) -> Tensor:
        return estimate(y_t, level).y_0_hat

    if not torch.is_grad_enabled():
        return compute(y_t, level)
    found: Tensor = checkpoint(compute, y_t, level, use_reentrant=False, preserve_rng_state=False)
    return found


@torch.no_grad()
def _long_chain(estimate: LevelEstimator, y_T: Tensor, noisiest: float, cleanest: float, num_steps: int) -> Tensor:
    ends = _log_snr(np.array([cleanest, noisiest]))
    return short_chain(
        estimate, y_T, torch.linspace(float(ends[0]), float(ends[1]), num_steps, dtype=torch.float64), "dpmpp_2m"
    )


def _log_snr(gammas: np.ndarray) -> np.ndarray:
    return np.log(gammas) - np.log1p(-gammas)


def _times(factor: Tensor, image: Tensor) -> Tensor:
    """A float64 factor times an image, in the image's type."""
    return factor.to(image.device, image.dtype) * image
