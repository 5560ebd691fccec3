"""Diversity of the samples of one input (section 5 reports dropped modes: "nearly the same image output")."""

import numpy as np
import torch
from torch import Tensor

from sr3core.errors import DataError
from sr3core.images.pixels import as_images
from sr3core.metrics.inputs import check_features


def pixel_diversity(samples: np.ndarray | Tensor) -> float:
    """Compute the root-mean-square difference of two samples, averaged over all pairs, in grey levels.

    Args:
        samples: uint8 RGB, (k, H, W, 3): k >= 2 samples of one input with different seeds.

    Returns:
        A value in [0, 255]; 0 if all samples are equal.

    Raises:
        DataError: samples are not uint8 RGB images, or fewer than two.
    """
    batch = as_images(samples, "samples")
    # (k, H, W, 3) -> (k, H W 3)
    return _mean_pairwise(batch.flatten(1).double()) / float(np.sqrt(batch[0].numel()))


def feature_diversity(features: np.ndarray) -> float:
    """Compute the mean Euclidean distance over all pairs of features (k, D) of one input's samples, k >= 2.

    Raises:
        DataError: features are not two-dimensional and finite, or fewer than two.
    """
    vectors = np.asarray(features, dtype=np.float64)
    check_features(vectors)
    return _mean_pairwise(torch.as_tensor(vectors))


def _mean_pairwise(vectors: Tensor) -> float:
    if len(vectors) < 2:
        raise DataError(f"diversity needs at least two samples per input, got {len(vectors)}")
    return float(torch.nn.functional.pdist(vectors).mean())
