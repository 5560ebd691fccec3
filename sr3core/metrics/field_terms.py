"""What a sample of fields adds to each score of a forecast: terms whose means over samples make the scores.

Scores are functions of such means, so that samples can be resampled, masked and merged without the fields.
"""

import math

import torch
from torch import Tensor

from sr3core.metrics.ensemble import fair_crps, fair_energy_score, rank_counts
from sr3core.metrics.spectra import radial_spectrum, spectral_angle


def forecast_terms(members: Tensor, truth: Tensor, valid: Tensor | None = None) -> dict[str, Tensor]:
    """Terms of a forecast, float64, one row a sample.

    Args:
        members: (M, B, C, H, W), in physical units; of a forecast without uncertainty M is 1.
        truth: (B, C, H, W).
        valid: where the truth is known, (B, C, H, W) bool; None for everywhere.

    Returns:
        count, squared (of the mean), absolute (of the median), error (of the mean) and crps: (B, C) sums over cells;
        spectrum: (B, C, K), mean over members. With several members also variance, (B, C), and ranks, (B, C, M + 1).
    """
    members, truth = members.double(), truth.double()
    weights = torch.ones_like(truth) if valid is None else valid.double()
    middle, error = members.quantile(0.5, 0), members.mean(0) - truth
    crps = fair_crps(members, truth) if len(members) > 1 else (middle - truth).abs()
    found = {
        "count": weights.sum((-2, -1)),
        "squared": (weights * error.square()).sum((-2, -1)),
        "absolute": (weights * (middle - truth).abs()).sum((-2, -1)),
        "error": (weights * error).sum((-2, -1)),
        "crps": (weights * crps).sum((-2, -1)),
        "spectrum": radial_spectrum(members).mean(0),
    }
    if len(members) > 1:
        found["variance"] = (weights * members.var(0, correction=1)).sum((-2, -1))
        found["ranks"] = rank_counts(members, truth, weights)
    return found


def energy_terms(members: Tensor, truth: Tensor, valid: Tensor | None = None) -> Tensor:
    """Energy score of whole samples, (B, 1): of one member, its distance. Channels are to be standardised before.

    Arguments are those of forecast_terms; values that are not known count nothing.
    """
    weights = torch.ones_like(truth) if valid is None else valid.to(truth.dtype)
    ours, theirs = (members * weights).double(), (truth * weights).double()
    if len(members) > 1:
        return fair_energy_score(ours, theirs)[:, None]
    distance = (ours[0] - theirs).flatten(1).square().sum(1, keepdim=True).sqrt()
    return distance / math.sqrt(theirs[0].numel())


def angle_terms(members: Tensor, truth: Tensor) -> Tensor:
    """Mean angle between the spectra of cells, in degrees, mean over members: (M, B, C, H, W) -> (B, 1)."""
    angles = [spectral_angle(member, truth).mean((-2, -1)) for member in members.double()]
    return torch.stack(angles).mean(0)[:, None]


def coarsening_terms(members: Tensor, low: Tensor) -> Tensor:
    """Mean squared difference between area means of members and the input, (M, B, C, H, W), (B, C, h, w) -> (B, C)."""
    height, width = low.shape[-2:]
    scale = members.shape[-2] // height, members.shape[-1] // width
    parts = members.double().reshape(*members.shape[:3], height, scale[0], width, scale[1])
    return (parts.mean((-3, -1)) - low.double()).square().mean((0, -2, -1))
