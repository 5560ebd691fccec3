"""Training on crops: a crop is trained as that part of its whole image, and what cannot be trained so is refused."""

import pytest
import torch

from sr3core.batch import Batch
from sr3core.config import override
from sr3core.errors import ConfigError
from sr3core.hyperparameters import ModelConfig, ObjectiveConfig, OptimizerConfig, UNetConfig
from sr3core.images.crops import draw_corner
from sr3core.networks.architectures import unet_tiny
from sr3core.randomness import keyed_generator
from sr3core.training import Trainer, create_state

CROP, HIGH, LOW = 16, 32, 8
MODEL = ModelConfig(low_size=LOW, high_size=HIGH, unet=override(unet_tiny(CROP, 8), input_noise=0.5))


def whole_batch(count: int = 4) -> Batch:
    generator = keyed_generator(0, "images")
    low, high = (torch.rand(count, 3, side, side, generator=generator) * 2 - 1 for side in (LOW, HIGH))
    return Batch(low, high, tuple(range(3, 3 + count)), keys=tuple("abcdefgh"[:count]))


def cropped(batch: Batch) -> Batch:
    corners = tuple(draw_corner(HIGH, CROP, 4, 0, 7, position) for position in batch.positions)
    high = torch.stack([_window(image, corner) for image, corner in zip(batch.high, corners, strict=True)])
    return Batch(batch.low, high, batch.positions, batch.keys, corners=corners)


def _window(image: torch.Tensor, corner: tuple[int, int]) -> torch.Tensor:
    top, left = corner
    return image[..., top : top + CROP, left : left + CROP]


def seen(model: ModelConfig, batch: Batch) -> list[torch.Tensor]:
    """What the network is given at step 7."""
    given: list[torch.Tensor] = []

    def network(*inputs: torch.Tensor) -> torch.Tensor:
        given.extend(value for value in inputs if value is not None)
        return torch.zeros_like(inputs[1])

    Trainer(model, OptimizerConfig(), seed=5).losses(network, batch, step=7)
    return given


@pytest.mark.parametrize("residual", ["none", "upsampled"])
def test_a_crop_is_given_what_the_whole_image_is_given_there(residual):
    objective = ObjectiveConfig(residual=residual, residual_scale=(0.1, 0.2, 0.3) if residual == "upsampled" else ())
    unet = override(MODEL.unet, input_noise=0.0 if residual == "upsampled" else 0.5)
    crops = override(MODEL, unet=unet, objective=objective)
    batch = cropped(whole_batch())
    assert len(set(batch.corners)) > 1
    (x_up, y_t, gamma, *told), (whole_x_up, whole_y_t, *whole_rest) = (
        seen(crops, batch),
        seen(override(crops, unet__image_size=HIGH), whole_batch()),
    )
    for number, corner in enumerate(batch.corners):
        assert torch.equal(x_up[number], _window(whole_x_up[number], corner))
        torch.testing.assert_close(y_t[number], _window(whole_y_t[number], corner), rtol=0, atol=1e-5)
    for mine, theirs in zip([gamma, *told], whole_rest, strict=True):
        assert torch.equal(mine, theirs)


def test_parts_of_a_batch_have_the_losses_of_the_whole_batch():
    state, batch = create_state(MODEL, OptimizerConfig(), seed=0), cropped(whole_batch())
    trainer = Trainer(MODEL, OptimizerConfig(), seed=0)
    whole = trainer.losses(state.model, batch, 7).values
    parts = torch.cat([trainer.losses(state.model, part, 7).values for part in batch.split(3)])
    torch.testing.assert_close(parts, whole, rtol=0, atol=1e-5)


def test_a_network_learns_from_crops():
    model = override(MODEL, unet__input_noise=0.0)
    optimizer = OptimizerConfig(learning_rate=3e-3, warmup_steps=0, ema_decay=0.0)
    state, trainer, batch = create_state(model, optimizer, 0), Trainer(model, optimizer, 0), cropped(whole_batch())
    first, *_, last = [float(trainer.step(state, state.model, [batch]).loss.detach()) for _ in range(40)]
    assert last < 0.9 * first


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"unet": unet_tiny(64)}, "unet.image_size: 64 is more than high_size 32"),
        (
            {"bounded": False},
            "unet.image_size: 16 is less than high_size 32, but fields are not cut into crops; take 32",
        ),
        (
            {"low_size": 20, "unet": unet_tiny(12)},
            "crops of 12 pixels do not cover whole pixels of the input, 8 of which are 5; take a multiple of 8",
        ),
        (
            {"kind": "base", "low_size": None, "unet": UNetConfig(image_size=16, conditional=False)},
            "unet.image_size: 16 is less than high_size 32, but a base model cannot be trained on crops",
        ),
    ],
)
def test_sizes_that_make_no_crops_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        override(MODEL, **changes)
