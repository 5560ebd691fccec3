"""Exact area, antialiased bicubic, blur and cropping, against independent references on real photos."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.ndimage import gaussian_filter1d
from torch.nn import functional

from sr3core.images.pixels import largest_central_crop, to_float, to_uint8
from sr3core.images.resize import (
    area_weights,
    bicubic_weights,
    blur,
    downsample_bicubic,
    gaussian_weights,
    resize_area,
    resize_bicubic,
    upsample_bicubic,
    upsample_nearest,
)


@pytest.fixture(scope="module")
def picture(photos):
    return np.asarray(Image.open(sorted(photos.glob("*.jpg"))[0]))


def area_by_fractions(values, out_size):
    """Integrate the step function exactly, in rational numbers."""
    step = Fraction(len(values), out_size)
    result = []
    for index in range(out_size):
        start, stop = index * step, (index + 1) * step
        covered = [max(Fraction(0), min(stop, Fraction(i + 1)) - max(start, Fraction(i))) for i in range(len(values))]
        result.append(float(sum(part * int(value) for part, value in zip(covered, values, strict=True)) / step))
    return result


def test_area_resampling_of_five_pixels_to_three():
    np.testing.assert_allclose(area_weights(5, 3) @ np.arange(5), [0.4, 2, 3.6])


@given(values=st.lists(st.integers(0, 255), min_size=1, max_size=40), data=st.data())
def test_area_weights_are_exact_integrals(values, data):
    out_size = data.draw(st.integers(1, len(values)))
    np.testing.assert_allclose(
        area_weights(len(values), out_size) @ values, area_by_fractions(values, out_size), atol=1e-9
    )


def test_area_of_a_real_photo_at_whole_and_fractional_ratios(picture):
    whole = picture.reshape(32, 4, 32, 4, 3).mean(axis=(1, 3))
    np.testing.assert_array_equal(resize_area(picture, 32), np.rint(whole).astype(np.uint8))
    rows = np.array([area_by_fractions(picture[:, x, 0], 48) for x in range(128)]).T  # (48, 128)
    exact = np.array([_area_float(row, 48) for row in rows])
    assert np.abs(resize_area(picture, 48)[..., 0] - exact).max() <= 0.5 + 1e-3


def _area_float(values, out_size):
    """Point-sample the step function so finely that every cell boundary is hit (128 and 48 divide 384)."""
    return np.repeat(values, 384 // len(values)).reshape(out_size, -1).mean(axis=1)


def test_area_resampling_only_shrinks(picture):
    np.testing.assert_array_equal(resize_area(picture, 128), picture)
    with pytest.raises(ValueError, match="cannot enlarge 128x128 to 200"):
        resize_area(picture, 200)


@pytest.mark.parametrize("size", [16, 50, 64, 127])
def test_bicubic_downsampling_is_pillows_in_floating_point(picture, size):
    """Pillow's 8-bit path rounds and clips between its passes; its float path does neither."""
    for channel in range(3):
        plane = Image.fromarray(picture[..., channel].astype(np.float32))
        pillow = np.asarray(plane.resize((size, size), Image.Resampling.BICUBIC))
        ours = resize_bicubic(picture, size)[..., channel].astype(float)
        assert np.abs(ours - np.clip(pillow, 0, 255)).max() <= 0.5 + 1e-3


@pytest.mark.parametrize("size", [8, 33, 100, 256, (70, 300)])
def test_bicubic_of_tensors_is_torchs_antialiased_one(picture, size):
    images = to_float(picture[None])
    resample = downsample_bicubic if np.max(size) < 128 else upsample_bicubic
    sizes = (size, size) if isinstance(size, int) else size
    theirs = torch.nn.functional.interpolate(images, sizes, mode="bicubic", antialias=True)
    torch.testing.assert_close(resample(images, size), theirs, rtol=0, atol=2e-5)


def test_plain_bicubic_would_be_another_operation(picture):
    images = to_float(picture[None])[..., ::8, ::8]
    plain = torch.nn.functional.interpolate(images, 128, mode="bicubic")
    assert float((upsample_bicubic(images, 128) - plain).abs().max()) * 127.5 > 5


@given(in_size=st.integers(1, 70), out_size=st.integers(1, 70))
def test_bicubic_weights_keep_constants_and_mirror_symmetry(in_size, out_size):
    weights = bicubic_weights(in_size, out_size)
    np.testing.assert_allclose(weights.sum(axis=1), 1)
    np.testing.assert_allclose(weights, weights[::-1, ::-1], atol=1e-12)


@pytest.mark.parametrize("sigma", [0.3, 1.0, 2.7, 40.0])
def test_blur_is_scipys_gaussian_with_reflection(sigma):
    ramp = np.random.default_rng(0).random(23)
    expected = gaussian_filter1d(ramp, sigma, mode="reflect", radius=int(np.ceil(4 * sigma)))
    np.testing.assert_allclose(gaussian_weights(23, sigma) @ ramp, expected, rtol=1e-9)


def test_blur_lowers_contrast_keeps_the_mean_and_copies_at_zero(picture):
    blurred = blur(picture, 2.0).astype(float)
    assert np.diff(blurred, axis=1).std() < 0.5 * np.diff(picture.astype(float), axis=1).std()
    assert blurred.mean() == pytest.approx(picture.mean(), abs=0.3)
    same = blur(picture, 0)
    np.testing.assert_array_equal(same, picture)
    assert same is not picture


def test_every_byte_survives_the_trip_to_floats_and_back():
    bytes_ = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 16, 16, 3)
    floats = to_float(bytes_)
    assert floats.shape == (1, 3, 16, 16)
    assert (float(floats.min()), float(floats.max())) == (-1, 1)
    np.testing.assert_array_equal(to_uint8(floats), bytes_)
    np.testing.assert_array_equal(to_uint8(torch.tensor([[[[-7.0]], [[0.0]], [[7.0]]]])), [[[[0, 128, 255]]]])


def test_to_float_takes_read_only_arrays_and_refuses_other_layouts():
    frozen = np.zeros((1, 4, 4, 3), np.uint8)
    frozen.flags.writeable = False
    assert to_float(frozen).shape == (1, 3, 4, 4)
    with pytest.raises(ValueError, match="expected uint8"):
        to_float(np.zeros((4, 4, 3), np.float32))


@pytest.mark.parametrize(("height", "width", "first", "last"), [(2, 5, 1, 2), (2, 4, 1, 2), (3, 3, 0, 2)])
def test_the_largest_central_crop(height, width, first, last):
    image = np.arange(width)[None, :, None].repeat(height, 0)
    cropped = largest_central_crop(image)
    assert cropped.shape == (min(height, width), min(height, width), 1)
    assert (cropped[0, 0, 0], cropped[0, -1, 0]) == (first, last)


@pytest.mark.parametrize("size", [(8, 12), (7, 5), (31, 40)])
def test_the_nearest_pixel_is_the_one_that_the_centre_is_in(size: tuple[int, int]) -> None:
    images = torch.rand(1, 3, 4, 3)
    expected = functional.interpolate(images, size, mode="nearest-exact")
    torch.testing.assert_close(upsample_nearest(images, size), expected)


def test_areas_and_bicubic_of_any_shape_are_those_of_each_axis() -> None:
    image = np.random.default_rng(0).integers(0, 256, (30, 44, 3), dtype=np.uint8)
    wide = resize_area(image, (15, 11))
    np.testing.assert_array_equal(wide, np.rint(image.reshape(15, 2, 11, 4, 3).mean((1, 3))))
    pillow = Image.fromarray(image).resize((13, 17), Image.Resampling.BICUBIC)
    assert np.abs(resize_bicubic(image, (17, 13)).astype(int) - np.asarray(pillow)).max() <= 1
    with pytest.raises(ValueError, match="cannot enlarge 30x44 to 31x11"):
        resize_area(image, (31, 11))
