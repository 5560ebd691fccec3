"""Consistency: its unit, its rounding floor, and the downsampling it stands on."""

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from sr3core.errors import DataError
from sr3core.images.resize import resize_bicubic
from sr3core.metrics.consistency import consistency


def smooth_images(count: int, size: int) -> np.ndarray:
    noise = torch.rand(count, 3, size // 4, size // 4, generator=torch.Generator().manual_seed(0))
    smooth = interpolate(noise, size=(size, size), mode="bilinear")
    return (smooth * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()


def test_unit_is_the_papers() -> None:
    outputs, inputs = np.full((1, 32, 32, 3), 100, np.uint8), np.full((1, 4, 4, 3), 110, np.uint8)
    assert consistency(outputs, inputs) == pytest.approx((10 / 255) ** 2 / 1e-5, rel=1e-5)


def test_ground_truth_scores_the_rounding_floor() -> None:
    truth = smooth_images(8, 128)
    inputs = np.stack([resize_bicubic(image, 16) for image in truth])
    floor = 1 / 12 / 255**2 / 1e-5  # a uniform rounding error of one grey level
    assert consistency(truth, inputs).mean() == pytest.approx(floor, rel=0.1)


def test_equals_torchs_antialiased_bicubic() -> None:
    outputs = np.random.default_rng(0).integers(0, 256, (3, 64, 48, 3), dtype=np.uint8)
    inputs = np.random.default_rng(1).integers(0, 256, (3, 8, 6, 3), dtype=np.uint8)
    large = torch.from_numpy(outputs).permute(0, 3, 1, 2).double() / 255
    small = interpolate(large, size=(8, 6), mode="bicubic", antialias=True).clamp(0, 1)
    error = small - torch.from_numpy(inputs).permute(0, 3, 1, 2).double() / 255
    expected = error.square().mean(dim=(1, 2, 3)).numpy() * 1e5
    np.testing.assert_allclose(consistency(outputs, inputs), expected, rtol=1e-5)


def test_detail_that_downsampling_removes_costs_nothing_and_a_colour_shift_does() -> None:
    truth = smooth_images(2, 128) // 2 + 64
    inputs = np.stack([resize_bicubic(image, 16) for image in truth])
    checkers = np.where(np.indices((128, 128)).sum(axis=0) % 2, 8, -8)[..., None]
    detailed = (truth + checkers).astype(np.uint8)
    np.testing.assert_allclose(consistency(detailed, inputs), consistency(truth, inputs), atol=0.05)
    assert (consistency(truth + np.uint8(2), inputs) > 5).all()


def test_overshoot_at_a_hard_edge_is_clipped_as_it_was_in_the_input() -> None:
    truth = np.zeros((1, 64, 64, 3), np.uint8)
    truth[:, :, 30:] = 255
    inputs = resize_bicubic(truth[0], 8)[None]
    assert consistency(truth, inputs)[0] < 1


@pytest.mark.parametrize("shape", [(2, 16, 16, 3), (1, 64, 64, 3), (1, 16, 16, 1)])
def test_inputs_that_do_not_belong_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError):
        consistency(np.zeros((1, 32, 32, 3), np.uint8), np.zeros(shape, np.uint8))
