"""Each operator of the random degradations against another implementation: scipy, Pillow, libjpeg."""

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage, stats

from sr3core.degradations.blurring import convolve, gaussian_kernels
from sr3core.degradations.jpeg import compress
from sr3core.degradations.noise import add_noise
from sr3core.degradations.resizing import METHODS, Method, bilinear_weights, resize
from sr3core.randomness import keyed_generator

PILLOW = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC, "area": Image.Resampling.BOX}


@pytest.fixture(scope="module")
def pictures(photos: Path) -> np.ndarray:
    """Photos, uint8 (8, 96, 96, 3)."""
    paths = sorted(photos.glob("*.jpg"))[:8]
    return np.stack([np.asarray(Image.open(path).convert("RGB").resize((96, 96))) for path in paths])


def as_tensor(pixels: np.ndarray) -> torch.Tensor:
    return torch.tensor(pixels).permute(0, 3, 1, 2).float() / 255


def kernels(sigmas: list[tuple[float, float]], angles: list[float], shapes: list[float]) -> torch.Tensor:
    return gaussian_kernels(torch.tensor(sigmas), torch.tensor(angles), torch.tensor(shapes), 10)


def test_isotropic_blur_is_scipys(pictures: np.ndarray) -> None:
    images = as_tensor(pictures[:2]).double()
    blurred = convolve(images, kernels([(1.5, 1.5), (2.5, 2.5)], [0.3, 0.0], [1.0, 1.0]).double())
    for image, sigma, found in zip(images.numpy(), (1.5, 2.5), blurred.numpy(), strict=True):
        expected = ndimage.gaussian_filter(image, (0, sigma, sigma), mode="mirror", radius=10)
        np.testing.assert_allclose(found, expected, atol=2e-4)  # scipy's kernel is a product, ours a sampled square


def test_anisotropic_kernels_have_the_covariance_that_they_are_asked_for() -> None:
    sigmas, angle = (2.5, 1.2), 0.7
    (kernel,) = kernels([sigmas], [angle], [1.0]).double().numpy()
    offsets = np.arange(-10, 11)
    columns, rows = np.meshgrid(offsets, -offsets)  # anticlockwise angles count rows upwards
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    expected = turn @ np.diag(np.square(sigmas)) @ turn.T
    found = [[(kernel * a * b).sum() for b in (columns, rows)] for a in (columns, rows)]
    np.testing.assert_allclose(found, expected, rtol=0.02)
    law: Any = stats.multivariate_normal
    density = law([0, 0], expected).pdf(np.dstack([columns, rows]))
    np.testing.assert_allclose(kernel, density / density.sum(), atol=1e-6)


@pytest.mark.parametrize("shape", [0.5, 2.0, 4.0])
def test_generalised_kernels_follow_scipys_generalised_normal_law_along_an_axis(shape: float) -> None:
    """exp(-(x^2 / sigma^2)^beta / 2) is scipy's gennorm of exponent 2 beta, scaled by 2^(1 / (2 beta)) sigma."""
    (kernel,) = kernels([(1.7, 1.7)], [0.0], [shape]).double().numpy()
    law: Any = stats.gennorm
    density = law(2 * shape, scale=1.7 * 2 ** (1 / (2 * shape))).pdf(np.arange(-10, 11))
    np.testing.assert_allclose(kernel[10] / kernel[10, 10], density / density[10], rtol=1e-4, atol=1e-7)
    assert kernel.sum() == pytest.approx(1)


@pytest.mark.parametrize(
    ("method", "size"), [(m, s) for m in METHODS for s in (24, 37, 48, 96, 150) if m != "area" or s != 37]
)
def test_resizing_is_pillows(pictures: np.ndarray, method: Method, size: int) -> None:
    """In floating point, a channel at a time: Pillow's 8-bit images are rounded and clipped between the two axes."""
    way = PILLOW["bilinear"] if method == "area" and size > 96 else PILLOW[method]
    found = resize(as_tensor(pictures[:2]), size, method)
    for image, ours in zip(pictures, found, strict=False):
        for channel in range(3):
            plane = Image.fromarray(image[..., channel].astype(np.float32) / 255)
            np.testing.assert_allclose(ours[channel], np.asarray(plane.resize((size, size), way)), atol=2e-5)


def test_area_of_sizes_that_do_not_divide_counts_parts_of_pixels() -> None:
    """Pillow's box takes whole pixels there; the mean over an interval is what area means."""
    ramp = torch.arange(5.0).expand(1, 3, 5, 5)
    np.testing.assert_allclose(resize(ramp, 3, "area")[0, 0, 0], [0.4, 2.0, 3.6], rtol=1e-6)
    np.testing.assert_allclose(bilinear_weights(7, 4).sum(1), 1)


@pytest.mark.parametrize("quality", [5, 30, 49, 50, 75, 95, 100])
def test_jpeg_is_libjpegs(pictures: np.ndarray, quality: int) -> None:
    """The loss is the same, and so are the artefacts; rounding in other places moves single coefficients by a step."""
    originals = pictures[:, :90, :77].astype(float)
    made = 255 * compress(as_tensor(pictures[:, :90, :77]), torch.full((8,), float(quality)))
    for original, image in zip(originals, made.permute(0, 2, 3, 1).numpy(), strict=True):
        buffer = io.BytesIO()
        Image.fromarray(original.astype(np.uint8)).save(buffer, "JPEG", quality=quality)
        theirs = np.asarray(Image.open(buffer)).astype(float)
        ours, loss = np.square(image - original).mean(), np.square(theirs - original).mean()
        assert ours == pytest.approx(loss, rel=0.05)
        assert np.square(image - theirs).mean() < 0.2 * loss + 1  # of rounding alone
        assert np.abs(image - theirs).mean() < 1.5


def test_each_image_has_its_own_quality_and_its_own_kernel(pictures: np.ndarray) -> None:
    images, qualities = as_tensor(pictures[:3]), torch.tensor([10.0, 90.0, 40.0])
    together = compress(images, qualities)
    alone = torch.cat([compress(images[i : i + 1], qualities[i : i + 1]) for i in range(3)])
    assert torch.equal(together, alone)
    several = kernels([(0.5, 2.0), (3.0, 1.0), (1.0, 1.0)], [0.1, 1.0, 0.0], [1.0, 0.7, 2.0])
    torch.testing.assert_close(
        convolve(images, several), torch.cat([convolve(images[i : i + 1], several[i : i + 1]) for i in range(3)])
    )


def test_noise_has_the_variance_of_scipys_poisson_and_normal_laws() -> None:
    grey = torch.tensor([0.1, 0.4, 0.9])[:, None, None, None].expand(3, 3, 200, 200)
    zero, no = torch.zeros(3), torch.zeros(3, dtype=torch.bool)
    counts = 400.0
    shot = add_noise(grey, [1, 2, 3], 0, zero, torch.full((3,), counts**-0.5), no).double().numpy()
    read = add_noise(grey, [1, 2, 3], 0, torch.full((3,), 0.05), zero, no).double().numpy()
    for level, ours, other in zip((0.1, 0.4, 0.9), shot, read, strict=True):
        law = stats.poisson(level * counts)
        assert ours.mean() == pytest.approx(law.mean() / counts, abs=4 * law.std() / counts / 346)
        assert ours.std() == pytest.approx(law.std() / counts, rel=0.01)
        deciles = law.ppf([0.1, 0.5, 0.9]) / counts
        np.testing.assert_allclose(np.quantile(ours, [0.1, 0.5, 0.9]), deciles, atol=1.2 / counts)
        assert stats.kstest((other.ravel()[:5000] - level) / 0.05, "norm").pvalue > 1e-3


def test_grey_noise_is_one_in_all_channels_and_colour_noise_three() -> None:
    images = torch.rand(2, 3, 64, 64, generator=keyed_generator(0, "images"))
    deviation = torch.full((2,), 0.05)
    noise = add_noise(images, [5, 6], 0, deviation, 0 * deviation, torch.tensor([True, False])) - images
    torch.testing.assert_close(noise[0, 0], noise[0, 2], rtol=0, atol=1e-6)
    assert abs(float(torch.corrcoef(noise[1].flatten(1))[0, 1])) < 0.08
    assert torch.equal(add_noise(images, [5, 6], 0, 0 * deviation, 0 * deviation, torch.tensor([True, False])), images)
