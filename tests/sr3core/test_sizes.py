"""Sizes of squares and rectangles: one form each, one ratio on both axes."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from sr3core.batch import Batch
from sr3core.config import fingerprint, from_dict, to_dict
from sr3core.errors import ConfigError
from sr3core.hyperparameters import ModelConfig, OptimizerConfig, UNetConfig
from sr3core.images.crops import draw_corner
from sr3core.networks.unet import UNet
from sr3core.sizes import describe, fits_in, num_pixels, ratio, rows_by_columns, size_of
from sr3core.training import Trainer, create_state

WIDE = UNetConfig(
    image_size=(16, 24), base_channels=8, channel_multipliers=(1, 2, 2), num_res_blocks=1, attention_sizes=(8,)
)


def wide(**changes: object) -> ModelConfig:
    return ModelConfig(**{"low_size": (4, 6), "high_size": (16, 24), "unet": WIDE, **changes})


def test_a_square_is_a_number() -> None:
    assert (size_of(64, 64), size_of(64, 96)) == (64, (64, 96))
    assert (describe(64), describe((64, 96)), describe(None)) == ("64", "64x96", "base")
    assert rows_by_columns(64) == "64x64"
    assert (num_pixels(64), num_pixels((64, 96)), num_pixels(None)) == (4096, 6144, 0)
    assert fits_in((64, 96), (64, 100))
    assert not fits_in(64, (63, 100))
    assert (ratio((128, 192), (64, 96)), ratio(128, 25)) == (2, Fraction(128, 25))
    assert ratio((128, 192), 64) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"low_size": (4, 4), "high_size": (16, 16)}, "low_size: 4x4 is a square; write 4"),
        ({"low_size": (4, 8)}, "the height of 16x24 is 4 times that of low_size 4x8, its width 3 times"),
        ({"low_size": (16, 24)}, "16x24 is not larger than low_size 16x24"),
        ({"low_size": (2, 6), "high_size": (8, 24)}, "unet.image_size: 16x24 is more than high_size 8x24"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        wide(**changes)


def test_a_side_that_cannot_be_halved_is_refused() -> None:
    with pytest.raises(ConfigError, match="16x26 cannot be halved 2 times; take a multiple of 4"):
        UNetConfig(image_size=(16, 26), channel_multipliers=(1, 2, 2))


def test_configurations_of_rectangles_survive_json_and_have_fingerprints_of_their_own() -> None:
    model = wide()
    assert from_dict(ModelConfig, to_dict(model)) == model
    turned = wide(low_size=(6, 4), high_size=(24, 16), unet=UNetConfig(image_size=(24, 16), channel_multipliers=(1, 2)))
    assert fingerprint(turned) != fingerprint(model)


def test_levels_are_named_by_their_sides_and_attend_by_the_shorter_one() -> None:
    network = UNet(WIDE)
    assert [name for name, _ in network.encoder.named_children()] == [
        *("16x24_block0", "8x12_down", "8x12_block0", "4x6_down", "4x6_block0")
    ]
    assert [type(block.attention).__name__ for block in network.encoder.children()][2] == "SelfAttention"


def test_crops_lie_anywhere_in_a_rectangle() -> None:
    corners = {draw_corner((8, 12), (4, 4), 4, 0, step, 0) for step in range(200)}
    assert corners == {(top, left) for top in (0, 4) for left in (0, 4, 8)}
    assert {draw_corner(8, (8, 4), 2, 0, step, 0)[0] for step in range(20)} == {0}


@pytest.mark.parametrize("crop", [None, (8, 16)])
def test_a_step_of_training_takes_rectangles(crop: tuple[int, int] | None) -> None:
    unet = WIDE if crop is None else UNetConfig(image_size=crop, base_channels=8, channel_multipliers=(1, 2, 2))
    model, optimizer = wide(unet=unet), OptimizerConfig()
    assert model.crop_size == crop
    state = create_state(model, optimizer, seed=0)
    batch = Batch(
        low=torch.zeros(2, 3, 4, 6),
        high=torch.zeros(2, 3, *(crop or (16, 24))),
        positions=(0, 1),
        corners=() if crop is None else ((8, 4), (0, 8)),
    )
    statistics = Trainer(model, optimizer, seed=0).step(state, state.model, [batch])
    assert np.isfinite(float(statistics.loss))
