"""Diversity of the samples for one input (section 5 saw modes dropped: "nearly the same image output")."""

import numpy as np
import torch
from torch import Tensor

from sr3core.errors import DataError
from sr3core.images.pixels import as_images
from sr3core.metrics.inputs import check_features


def pixel_diversity(samples: np.ndarray | Tensor) -> float:
    """Compute the mean root-mean-square difference over all pairs of samples of one input, in grey levels.

    Args:
        samples: uint8 RGB, (k, H, W, 3), k at least 2, of one input and k seeds.

    Returns:
        In [0, 255]; 0 where all samples are the same image.

    Raises:
        DataError: not such images.
    """
    batch = as_images(samples, "samples")
    return _mean_pairwise(batch.flatten(1).double()) / float(np.sqrt(batch[0].numel()))


def feature_diversity(features: np.ndarray) -> float:
    """Compute the mean Euclidean distance over all pairs of one input's samples' features, (k, D), k at least 2.

    Raises:
        DataError: not such features.
    """
    vectors = np.asarray(features, dtype=np.float64)
    check_features(vectors)
    return _mean_pairwise(torch.as_tensor(vectors))


def _mean_pairwise(vectors: Tensor) -> float:
    if len(vectors) < 2:
        raise DataError(f"diversity needs at least two samples an input, got {len(vectors)}")
    return float(torch.nn.functional.pdist(vectors).mean())
