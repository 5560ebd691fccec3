"""PSNR against closed forms; the preparation that it shares with SSIM."""

import numpy as np
import pytest
import torch

from sr3core.errors import ConfigError, DataError
from sr3core.metrics.inputs import LUMA_OFFSET, comparable
from sr3core.metrics.psnr import psnr


def random_images(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("step", [1, 2, 16, 255])
def test_constant_difference_has_a_closed_form(step: int) -> None:
    black = np.zeros((2, 8, 9, 3), np.uint8)
    assert psnr(black, black + np.uint8(step)) == pytest.approx([20 * np.log10(255 / step)] * 2, abs=1e-12)


def test_one_wrong_pixel_in_one_channel() -> None:
    images, references = np.zeros((2, 1, 4, 5, 3), np.uint8)
    images[0, 1, 2, 0] = 10
    assert psnr(images, references) == pytest.approx(10 * np.log10(255**2 / (10**2 / 60)), abs=1e-12)


def test_equal_images_are_infinitely_good_without_a_warning() -> None:
    images = random_images(3, 16, 16, 3)
    assert np.isposinf(psnr(images, images)).all()


def test_each_image_counts_alone_and_the_mean_is_of_decibels() -> None:
    images, references = random_images(4, 12, 12, 3), random_images(4, 12, 12, 3, seed=1)
    together = psnr(images, references)
    alone = [psnr(images[i : i + 1], references[i : i + 1])[0] for i in range(4)]
    assert together.dtype == np.float64
    np.testing.assert_array_equal(together, alone)


def test_differences_do_not_wrap_around_in_uint8() -> None:
    low, high = np.full((1, 4, 4, 3), 3, np.uint8), np.full((1, 4, 4, 3), 250, np.uint8)
    assert psnr(low, high) == pytest.approx(psnr(high, low))


def test_tensors_and_arrays_give_the_same() -> None:
    images, references = random_images(2, 8, 8, 3), random_images(2, 8, 8, 3, seed=1)
    np.testing.assert_array_equal(
        psnr(torch.from_numpy(images), torch.from_numpy(references)), psnr(images, references)
    )


def test_read_only_images_are_welcome() -> None:
    images = random_images(2, 8, 8, 3)
    images.flags.writeable = False
    assert np.isposinf(psnr(images, images)).all()


@pytest.mark.parametrize(
    ("colour", "luma"),
    [
        ((0, 0, 0), 16),
        ((255, 255, 255), 235),
        ((255, 0, 0), 81.481),
        ((0, 255, 0), 144.553),
        ((0, 0, 255), 40.966),
    ],
)
def test_luma_is_studio_swing(colour: tuple[int, int, int], luma: float) -> None:
    image = np.full((1, 2, 2, 3), colour, np.uint8)
    values, _ = comparable(image, image, y_channel=True, crop_border=0)
    assert values.shape == (1, 2, 2, 1)
    np.testing.assert_allclose(values.numpy(), luma, atol=1e-9)


def test_luma_psnr_of_a_grey_step_is_that_of_the_compressed_step() -> None:
    grey, brighter = np.full((2, 1, 4, 4, 3), 100, np.uint8)
    brighter += 10
    assert LUMA_OFFSET == 16
    assert psnr(grey, brighter, y_channel=True) == pytest.approx(20 * np.log10(255 / (10 * 219 / 255)))


def test_the_cropped_border_does_not_count() -> None:
    references = random_images(1, 10, 12, 3)
    images = references.copy()
    images[:, 0], images[:, :, -1] = 0, 0
    images[:, 5, 5] ^= 1
    inner = (slice(None), slice(2, -2), slice(2, -2))
    np.testing.assert_array_equal(psnr(images, references, crop_border=2), psnr(images[inner], references[inner]))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((1, 8, 8, 3), np.float32), "uint8"),
        (np.zeros((8, 8, 3), np.uint8), "uint8"),
        (np.zeros((1, 3, 8, 8), np.uint8), "uint8"),
        (np.zeros((1, 8, 9, 3), np.uint8), "differ in shape"),
        (np.zeros((0, 8, 8, 3), np.uint8), "uint8"),
    ],
)
def test_unfit_images_are_refused(images: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        psnr(images, np.zeros((1, 8, 8, 3), np.uint8))


def test_impossible_borders_are_refused() -> None:
    images = np.zeros((1, 8, 8, 3), np.uint8)
    with pytest.raises(ConfigError, match="crop_border"):
        psnr(images, images, crop_border=-1)
    with pytest.raises(DataError, match="leaves nothing"):
        psnr(images, images, crop_border=4)
