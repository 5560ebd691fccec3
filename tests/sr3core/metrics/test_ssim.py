"""SSIM against a loop over windows, against torchmetrics, and its closed forms."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sr3core.errors import DataError
from sr3core.metrics.ssim import ssim


@pytest.fixture(scope="module")
def images(photos: Path) -> np.ndarray:
    """Five real photographs, uint8 (5, 96, 96, 3)."""
    paths = sorted(photos.glob("*.jpg"))[:5]
    return np.stack([np.array(Image.open(path).convert("RGB"))[16:112, 16:112] for path in paths])


def degrade(images: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, 12, images.shape)
    return np.clip(images * 0.9 + 10 + noise, 0, 255).astype(np.uint8)


def brute_force_ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Wang et al. window by window, with an explicit 11x11 kernel and centred second moments."""
    kernel = np.array([[math.exp(-((i - 5) ** 2 + (j - 5) ** 2) / (2 * 1.5**2)) for j in range(11)] for i in range(11)])
    kernel /= kernel.sum()
    values = []
    for top in range(a.shape[0] - 10):
        for left in range(a.shape[1] - 10):
            for channel in range(a.shape[2]):
                u = a[top : top + 11, left : left + 11, channel].astype(float)
                v = b[top : top + 11, left : left + 11, channel].astype(float)
                mu, nu = (kernel * u).sum(), (kernel * v).sum()
                uu, vv = (kernel * (u - mu) ** 2).sum(), (kernel * (v - nu) ** 2).sum()
                uv = (kernel * (u - mu) * (v - nu)).sum()
                c1, c2 = 2.55**2, 7.65**2
                values.append((2 * mu * nu + c1) * (2 * uv + c2) / ((mu**2 + nu**2 + c1) * (uu + vv + c2)))
    return float(np.mean(values))


def test_equals_a_loop_over_windows(images: np.ndarray) -> None:
    images = images[:2, 10:36, 20:43]
    worse = degrade(images)
    expected = [brute_force_ssim(a, b) for a, b in zip(images, worse, strict=True)]
    np.testing.assert_allclose(ssim(worse, images), expected, atol=1e-12)


def test_equals_torchmetrics(images: np.ndarray) -> None:
    oracle = pytest.importorskip("torchmetrics.functional.image", reason="torchmetrics is an oracle only")
    worse = degrade(images)
    first, second = (torch.from_numpy(batch).permute(0, 3, 1, 2).double() for batch in (worse, images))
    _, padded = oracle.structural_similarity_index_measure(
        first, second, sigma=1.5, data_range=255.0, reduction="none", return_full_image=True
    )
    whole_windows = padded[..., 5:-5, 5:-5]  # its own mean counts windows that hang over the border, mirrored
    np.testing.assert_allclose(ssim(worse, images), whole_windows.mean(dim=(1, 2, 3)).numpy(), atol=1e-9)


def test_one_for_equal_images_and_symmetric(images: np.ndarray) -> None:
    images = images[:, :32, :32]
    worse = degrade(images)
    np.testing.assert_allclose(ssim(images, images), 1, atol=1e-12)
    np.testing.assert_allclose(ssim(images, worse), ssim(worse, images), atol=1e-12)


def test_flat_images_have_a_closed_form() -> None:
    dark, bright = np.full((1, 16, 16, 3), 50, np.uint8), np.full((1, 16, 16, 3), 200, np.uint8)
    c1 = 2.55**2
    expected = (2 * 50 * 200 + c1) / (50**2 + 200**2 + c1)
    np.testing.assert_allclose(ssim(dark, bright), expected, atol=1e-12)


def test_luma_and_border_are_the_classical_convention(images: np.ndarray) -> None:
    images = images[:, :40, :40]
    worse = degrade(images)
    inner = (slice(None), slice(4, -4), slice(4, -4))
    np.testing.assert_array_equal(ssim(worse, images, crop_border=4), ssim(worse[inner], images[inner]))
    grey, worse_grey = (np.repeat(batch[..., :1], 3, axis=-1) for batch in (images, worse))
    luma = [16 + 219 / 255 * batch[..., :1].astype(float) for batch in (grey, worse_grey)]
    expected = brute_force_ssim(luma[0][0], luma[1][0])
    assert ssim(worse_grey[:1], grey[:1], y_channel=True)[0] == pytest.approx(expected, abs=1e-12)


def test_the_smallest_image_has_one_window_and_a_smaller_one_is_refused(images: np.ndarray) -> None:
    images = images[:, :32, :32]
    assert ssim(images[:, :11, :11], images[:, 1:12, 1:12]).shape == (5,)
    with pytest.raises(DataError, match="11 pixels"):
        ssim(images[:, :10], images[:, :10])
    with pytest.raises(DataError, match="11 pixels"):
        ssim(images[:, :16, :16], images[:, :16, :16], crop_border=3)
