"""Inception Score (Table 2): high if predictions are confident for each image and varied over all images."""

from typing import NamedTuple

import numpy as np

from sr3core.errors import ConfigError, DataError
from sr3core.metrics.inputs import check_features


class SplitScore(NamedTuple):
    """A score averaged over disjoint parts of the images."""

    mean: float
    """Mean over the parts."""
    std: float
    """Standard deviation over the parts, as papers report it; 0 for a single part."""


def inception_score(logits: np.ndarray, num_splits: int = 10) -> SplitScore:
    """Compute exp(E KL(p(y|x) || p(y))): mean and standard deviation over consecutive parts of the images.

    It is the paper's IS only with logits of the Inception of 2015-12-05 and ten parts of 5,000 images, as in the
    original code. Each part's p(y) is its own mean, so few images per part bias the score downwards.

    Args:
        logits: (n, classes), before the softmax, of any real type (computed in float64), with images in random order.
        num_splits: number of parts, at most n.

    Returns:
        The score, at least 1 and at most the number of classes.

    Raises:
        ConfigError: num_splits is not positive.
        DataError: logits are not two-dimensional and finite, or n < num_splits.
    """
    values = np.asarray(logits, dtype=np.float64)
    check_features(values)
    if num_splits < 1:
        raise ConfigError(f"num_splits must be positive, got {num_splits}")
    if len(values) < num_splits:
        raise DataError(f"an Inception Score in {num_splits} parts needs at least as many images, got {len(values)}")
    log_p = _log_softmax(values)
    scores = [_score(part) for part in np.array_split(log_p, num_splits)]
    return SplitScore(mean=float(np.mean(scores)), std=float(np.std(scores)))


def _score(log_p: np.ndarray) -> float:
    p = np.exp(log_p)
    marginal = p.mean(axis=0)
    # A class with probability 0 for all images has p = 0 in every row; its term is 0 log 0 = 0.
    divergences = np.where(p > 0, p * (log_p - np.log(np.where(marginal > 0, marginal, 1))), 0).sum(axis=1)
    return float(np.exp(divergences.mean()))


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
