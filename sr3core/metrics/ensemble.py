"""Scores of ensembles of fields: estimators that are right for any number of members (Ferro, 2014).

All take members (M, ...) and truth (...) of one shape, and return a score a value, before any mean, so that masks,
weights and samples can be applied afterwards.
"""

import math

import torch
from torch import Tensor

from sr3core.errors import ConfigError


def fair_crps(members: Tensor, truth: Tensor) -> Tensor:
    """Continuous ranked probability score, in the unit of the values: (M, ...) and (...) -> (...).

    Fair (Ferro, 2014): unbiased for the score of the distribution that the members are drawn from, whatever their
    number. The plain estimator takes few members of a perfect distribution for a bad one.

    Raises:
        ConfigError: there are fewer than two members.
    """
    count = _at_least_two(members)
    ordered = members.sort(dim=0).values
    # sum over pairs |x_m - x_n| = sum over ranks of (2 r - M - 1) x_(r), twice
    ranks = torch.arange(1, count + 1, device=members.device, dtype=members.dtype)
    weights = (2 * ranks - count - 1).view(-1, *[1] * truth.ndim)
    pairs = (weights * ordered).sum(0) / (count * (count - 1))
    return (members - truth).abs().mean(0) - pairs


def fair_energy_score(members: Tensor, truth: Tensor) -> Tensor:
    """Energy score of whole fields, (M, B, ...) and (B, ...) -> (B,), divided by the root of the number of values.

    The CRPS for vectors (Gneiting and Raftery, 2007): it sees whether the values of a field belong together. Channels
    of different units are to be standardised before.

    Raises:
        ConfigError: there are fewer than two members.
    """
    count = _at_least_two(members)
    flat, aim = members.flatten(2), truth.flatten(1)  # (M, B, N) and (B, N)
    distances = (flat - aim).square().sum(2).sqrt().mean(0)
    between = torch.zeros_like(distances)
    for first in range(count):
        for second in range(first + 1, count):
            between += (flat[first] - flat[second]).square().sum(1).sqrt()
    return (distances - between / (count * (count - 1))) / math.sqrt(aim.shape[1])


def spread_skill_ratio(members: Tensor, truth: Tensor, weights: Tensor | None = None) -> float:
    """sqrt((M + 1) / M x mean variance) / RMSE of the mean: 1 for an ensemble that is as uncertain as it is wrong.

    Without (M + 1) / M an ensemble of few members that is right would look too narrow (Fortin et al., 2014).

    Args:
        members: (M, ...).
        truth: (...).
        weights: of each value, (...), at least 0; None for 1.

    Raises:
        ConfigError: there are fewer than two members.
    """
    count = _at_least_two(members)
    variance = members.var(0, correction=1)
    error = (members.mean(0) - truth).square()
    spread, skill = (_weighted_mean(values, weights) for values in (variance, error))
    return math.sqrt((count + 1) / count * spread / max(skill, 1e-300))


def rank_histogram(members: Tensor, truth: Tensor, weights: Tensor | None = None) -> Tensor:
    """Share of values at which the truth has each rank among the members, (M + 1,): even for a right ensemble.

    Ties are shared evenly among the ranks that they span.
    """
    weight = torch.ones_like(truth) if weights is None else weights.expand(truth.shape)
    found = rank_counts(members.reshape(len(members), 1, -1), truth.reshape(1, -1), weight.reshape(1, -1))
    return found / found.sum()


def rank_counts(members: Tensor, truth: Tensor, weights: Tensor) -> Tensor:
    """Weight of the values at which the truth has each rank: (M, ..., H, W), (..., H, W) twice -> (..., M + 1)."""
    below, equal = (members < truth).sum(0), (members == truth).sum(0)
    share, last = weights.double() / (equal + 1), below + equal
    found = [torch.where((below <= rank) & (rank <= last), share, 0.0) for rank in range(len(members) + 1)]
    return torch.stack([each.sum((-2, -1)) for each in found], dim=-1)


def _at_least_two(members: Tensor) -> int:
    if len(members) < 2:
        raise ConfigError(f"members: a score of ensembles needs two at least, and there are {len(members)}")
    return len(members)


def _weighted_mean(values: Tensor, weights: Tensor | None) -> float:
    exact = values.double()
    if weights is None:
        return float(exact.mean())
    expanded = weights.double().expand(exact.shape)
    return float((exact * expanded).sum() / expanded.sum())
