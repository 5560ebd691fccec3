"""One-dimensional targets whose denoiser and probability flow are known exactly, and noise for many tiny images."""

import math

import numpy as np
import torch

from sr3core.diffusion.schedules import InferenceSchedule, inference_gammas
from sr3core.hyperparameters import SamplerConfig


class OneStream:
    """All noise from one generator: fast for many tiny images."""

    def __init__(self, seed=0, dtype=torch.float32):
        self.generator, self.dtype = torch.Generator().manual_seed(seed), dtype
        self.drawn = []

    def __call__(self, shape):
        self.drawn.append(torch.randn(tuple(shape), generator=self.generator, dtype=self.dtype))
        return self.drawn[-1]


class Mixture:
    """y_0 from a mixture of Gaussians, every value by itself; one component is a Gaussian."""

    def __init__(self, weights, means, deviations):
        self.weights, self.means, self.deviations = (np.array(values) for values in (weights, means, deviations))
        self.mean = float(self.weights @ self.means)
        self.variance = float(self.weights @ (self.deviations**2 + self.means**2)) - self.mean**2

    def denoise(self, x_up, y_t, gamma):
        """E[epsilon | y_t]."""
        gamma = gamma.view(-1, *[1] * (y_t.ndim - 1))
        parts = torch.tensor(np.stack([self.weights, self.means, self.deviations])).view(3, -1, *[1] * y_t.ndim)
        variance = gamma * parts[2] ** 2 + 1 - gamma
        away = y_t.double() - gamma.sqrt() * parts[1]
        share = torch.softmax(parts[0].log() - 0.5 * variance.log() - 0.5 * away**2 / variance, 0)
        return ((1 - gamma).sqrt() * share * away / variance).sum(0).to(y_t.dtype)

    def distribution(self, y, gamma):
        """P(y_t <= y) at noise level gamma; y is (n,)."""
        deviations = np.sqrt(gamma * self.deviations**2 + 1 - gamma)
        standard = (y[:, None] - math.sqrt(gamma) * self.means) / deviations / math.sqrt(2)
        return (self.weights * 0.5 * (1 + np.vectorize(math.erf)(standard))).sum(1)

    def flow(self, y_t, gamma):
        """Where the probability flow takes y_t from level gamma: it keeps every quantile, so bisection finds it."""
        wanted = self.distribution(y_t, gamma)
        low, high = np.full(len(y_t), -4.0), np.full(len(y_t), 4.0)
        for _ in range(60):
            middle = (low + high) / 2
            below = self.distribution(middle, 1.0) < wanted
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        return low


GAUSSIAN = Mixture([1.0], [0.4], [0.3])
TWO_PEAKS = Mixture([0.3, 0.7], [-0.5, 0.4], [0.1, 0.15])


def plan(family, num_steps, sampler=None, gamma_first=1 - 1e-8, gamma_last=1e-3):
    """A schedule; by default its last level is so clean that nothing is left to solve."""
    gammas = inference_gammas(family, num_steps, gamma_first, gamma_last)
    return InferenceSchedule(gammas=tuple(float(gamma) for gamma in gammas), sampler=sampler or SamplerConfig())
