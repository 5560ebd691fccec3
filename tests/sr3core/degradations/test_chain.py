"""The random chain: a function of each image's seed, whatever its batch; settings that leave nothing are refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from sr3core.degradations.chain import degrade, draw_rounds
from sr3core.degradations.settings import KERNEL_RADIUS, DegradationConfig
from sr3core.errors import ConfigError
from sr3core.images.pixels import to_uint8
from sr3core.images.resize import downsample_bicubic
from sr3core.randomness import keyed_generator

CONFIG = DegradationConfig(order=2)


def images(count: int, side: int = 64) -> torch.Tensor:
    """Smooth pictures in [-1, 1]."""
    coarse = torch.randn(count, 3, 8, 8, generator=keyed_generator(0, "pictures"))
    return torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic").clamp(-1, 1)


@pytest.mark.parametrize("order", [1, 2])
def test_an_image_is_degraded_the_same_alone_and_in_any_company(order: int) -> None:
    config, high = replace(CONFIG, order=order), images(6)
    seeds = [11, 12, 13, 14, 15, 16]
    together = degrade(config, high, 16, seeds)
    assert together.shape == (6, 3, 16, 16)
    for index in (0, 3, 5):
        alone = degrade(config, high[index : index + 1], 16, seeds[index : index + 1])
        torch.testing.assert_close(alone, together[index : index + 1], rtol=0, atol=1e-6)
    other = degrade(config, high, 16, [seed + 100 for seed in seeds])
    assert float((other - together).abs().mean()) > 0.02


def test_outputs_are_values_of_8_bits() -> None:
    low = degrade(CONFIG, images(4), 16, [1, 2, 3, 4])
    levels = (low + 1) * 127.5
    torch.testing.assert_close(levels, levels.round(), rtol=0, atol=1e-4)
    np.testing.assert_array_equal(to_uint8(low), levels.round().permute(0, 2, 3, 1).numpy())


def test_draws_cover_their_ranges_and_the_second_round_blurs_less() -> None:
    drawn = [draw_rounds(CONFIG, 16, 64, seed) for seed in range(2000)]
    first, second = zip(*drawn, strict=True)
    sizes = {each.size for each in first}
    assert (min(sizes), max(sizes), len(sizes)) == ((16, 16), (64, 64), 8)
    assert {each.size for each in second} == {(16, 16)}
    share = {
        "blurred": np.mean([each.sigmas[0] > 0 for each in first]),
        "isotropic": np.mean([each.sigmas[0] == each.sigmas[1] for each in first if each.sigmas[0]]),
        "noisy": np.mean([each.gaussian + each.poisson > 0 for each in first]),
        "poisson": np.mean([each.poisson > 0 for each in first if each.gaussian + each.poisson > 0]),
        "grey": np.mean([each.grey for each in first]),
        "compressed": np.mean([each.quality > 0 for each in first]),
        "bicubic": np.mean([each.method == "bicubic" for each in first]),
    }
    expected = {"blurred": 0.8, "isotropic": 0.5, "noisy": 0.8, "poisson": 0.5, "grey": 0.4, "compressed": 0.9}
    assert share == pytest.approx({**expected, "bicubic": 1 / 3}, abs=0.04)
    assert 2.9 < max(each.sigmas[0] for each in first) <= 3.0
    assert 1.4 < max(each.sigmas[0] for each in second) <= 1.5
    assert {each.quality for each in first} == {0, *range(30, 96)}


def test_without_any_operation_only_the_resizing_is_left() -> None:
    nothing = DegradationConfig(order=1, blur_probability=0, noise_probability=0, jpeg_probability=0)
    high = images(9)
    found = degrade(nothing, high, 16, list(range(9)))
    bicubic = downsample_bicubic(high, 16)
    assert float((found - bicubic).abs().mean((1, 2, 3)).max()) < 0.1
    assert float((degrade(CONFIG, high, 16, list(range(9))) - bicubic).abs().mean((1, 2, 3)).min()) > 0.15


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"order": 3}, "order: 3 is not 0, 1 or 2"),
        ({"jpeg_quality_min": 96}, "jpeg_quality_min, jpeg_quality_max: 1 <= 96 <= 95 <= 100 does not hold"),
        ({"blur_sigma_max": 9.0}, "0 < 0.2 <= 9.0 <= 3.33 does not hold"),
        ({"noise_probability": 1.5}, r"noise_probability: 1.5 is not in \[0, 1\]"),
        ({"resize_min": 0.0}, "resize_min, resize_max: 0 < 0.0"),
    ],
)
def test_settings_out_of_range_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DegradationConfig(**changes)


def test_a_chain_that_leaves_nothing_to_blur_is_refused() -> None:
    CONFIG.check_size(64)
    with pytest.raises(
        ConfigError, match=rf"leaves 8 of 32 pixels for the second blur, whose kernels need {KERNEL_RADIUS + 1}"
    ):
        CONFIG.check_size(32)
    replace(CONFIG, order=1).check_size(32)
