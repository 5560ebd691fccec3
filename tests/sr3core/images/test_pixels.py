"""Images between uint8 (H, W, C) and float (C, H, W): every value, the layout, and what must not be touched."""

import numpy as np
import pytest
import torch

from sr3core.images.pixels import largest_central_crop, to_float, to_uint8


def every_value() -> np.ndarray:
    """(2, 8, 16, 3) uint8 in which each of the 256 values comes three times, no two planes alike."""
    return np.random.default_rng(0).permutation(np.repeat(np.arange(256, dtype=np.uint8), 3)).reshape(2, 8, 16, 3)


DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.mark.parametrize("device", DEVICES)
def test_every_value_is_mapped_to_its_place_in_minus_1_to_1(device):
    """The quotient is exact on every device: a product with the reciprocal differs in the last bit."""
    images = every_value()
    floats = to_float(torch.tensor(images, device=device)).cpu()
    expected = images.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(127.5) - np.float32(1)
    assert floats.dtype == torch.float32
    assert floats.is_contiguous()
    np.testing.assert_array_equal(floats.numpy(), expected)
    assert (floats.min(), floats.max()) == (-1, 1)


def test_to_uint8_takes_back_what_to_float_did_and_clips_the_rest():
    np.testing.assert_array_equal(to_uint8(to_float(every_value())), every_value())
    assert to_uint8(torch.tensor([-7.0, 7.0]).reshape(1, 2, 1, 1)).ravel().tolist() == [0, 255]


@pytest.mark.parametrize("kind", [np.asarray, torch.tensor])
def test_the_images_given_are_left_as_they_were(kind):
    images = kind(every_value())
    to_float(images)
    np.testing.assert_array_equal(np.asarray(images), every_value())


def test_read_only_arrays_are_taken():
    images = every_value()
    images.setflags(write=False)
    torch.testing.assert_close(to_float(images), to_float(every_value()), rtol=0, atol=0)


@pytest.mark.parametrize("images", [np.zeros((2, 2, 3), np.uint8), np.zeros((1, 2, 2, 3), np.float32)])
def test_other_shapes_and_types_are_refused(images):
    with pytest.raises(ValueError, match="expected uint8"):
        to_float(images)


def test_an_odd_margin_leaves_the_extra_row_or_column_at_the_end():
    image = np.arange(5 * 8 * 3).reshape(5, 8, 3)
    np.testing.assert_array_equal(largest_central_crop(image), image[:, 1:6])
    np.testing.assert_array_equal(largest_central_crop(image.swapaxes(0, 1)), image.swapaxes(0, 1)[1:6])
    np.testing.assert_array_equal(largest_central_crop(image, (1, 3)), image[1:3])  # 7 / 3 rows, rounded down
    np.testing.assert_array_equal(largest_central_crop(image, (3, 1)), image[:, 3:4])
