"""Residual diffusion: the chain draws a residual, and its image is clipped, projected and returned."""

from typing import get_args

import pytest
import torch

from sr3core.batch import Batch
from sr3core.config import override
from sr3core.diffusion.equations import predict_epsilon
from sr3core.diffusion.projection import BackProjection
from sr3core.diffusion.residual import Residual, residual_of
from sr3core.diffusion.sampling import sample
from sr3core.diffusion.schedules import default_schedule
from sr3core.errors import ConfigError
from sr3core.hyperparameters import ModelConfig, ObjectiveConfig, OptimizerConfig, SamplerAlgorithm, SamplerConfig
from sr3core.images.resize import upsample_bicubic
from sr3core.networks.architectures import unet_tiny
from sr3core.networks.unet import UNet
from sr3core.randomness import keyed_generator
from sr3core.training import Trainer, create_state
from sr3core.upscaling.cascade import upscale
from sr3core.upscaling.stage import Stage
from tests.sr3core.targets import GAUSSIAN, OneStream, plan

SCALE = (0.1, 0.2, 0.05)


def images(name, size=16, count=2):
    """Smooth images in [-1, 1], and their low-resolution versions: (B, 3, S, S) and (B, 3, S / 4, S / 4)."""
    low = torch.rand(count, 3, size // 4, size // 4, generator=keyed_generator(0, name)) * 1.6 - 0.8
    return upsample_bicubic(low, size), low


def test_a_residual_of_the_measured_scale_has_a_standard_deviation_of_a_half():
    x_up, _ = images("scale", size=64)
    high = x_up + torch.randn(x_up.shape, generator=keyed_generator(0, "high")) * torch.tensor(SCALE).view(3, 1, 1)
    converter = Residual(x_up, SCALE)
    residual = converter.of(high)
    assert residual.std(dim=(0, 2, 3)).numpy() == pytest.approx([0.5] * 3, rel=0.05)
    torch.testing.assert_close(converter.image(residual), high)


@pytest.mark.parametrize("algorithm", get_args(SamplerAlgorithm))
def test_without_clipping_the_image_is_that_of_the_residual_drawn(algorithm):
    x_up, _ = images("linear")
    walk = plan("linear", 8, SamplerConfig(algorithm=algorithm, clip="none"), gamma_first=1 - 1e-4)
    drawn = sample(GAUSSIAN.denoise, x_up, x_up.shape, walk, OneStream())
    converter = Residual(x_up, SCALE)
    image = sample(GAUSSIAN.denoise, x_up, x_up.shape, walk, OneStream(), residual=converter)
    assert torch.equal(image, converter.image(drawn))


@pytest.mark.parametrize("clip", ["static", "dynamic"])
@pytest.mark.parametrize("algorithm", get_args(SamplerAlgorithm))
def test_the_image_is_clipped_not_the_residual(algorithm, clip):
    """The network knows the residual, whose values reach 8; the image with it lies in [-1, 1], so nothing is lost."""
    x_up, _ = images("clip")
    converter = Residual(x_up, SCALE)
    high = torch.rand(x_up.shape, generator=keyed_generator(1, "high")) * 2 - 1
    truth = converter.of(high)
    assert float(truth.abs().max()) > 4

    def denoise(x_up, y_t, gamma):
        return predict_epsilon(y_t, gamma, truth)

    walk = plan("linear", 8, SamplerConfig(algorithm=algorithm, clip=clip), gamma_first=1 - 1e-6)
    found = sample(denoise, x_up, x_up.shape, walk, OneStream(), residual=converter)
    assert float((found - high).abs().mean()) < 0.01


def test_the_image_is_projected_not_the_residual():
    x_up, low = images("project")
    walk = plan("linear", 4, SamplerConfig(algorithm="ddim", clip="none", project=5), gamma_first=1 - 1e-6)
    projection = BackProjection(low, (16, 16))
    found = sample(GAUSSIAN.denoise, x_up, x_up.shape, walk, OneStream(), None, projection, Residual(x_up, SCALE))
    once_more = projection(found)
    assert float((once_more - found).abs().mean()) < 1e-3


def model(**objective):
    return ModelConfig(low_size=4, high_size=16, unet=unet_tiny(16, 8), objective=ObjectiveConfig(**objective))


def batch_of(high, low):
    return Batch(low, high, tuple(range(len(high))))


@pytest.mark.parametrize("target", ["epsilon", "y_0", "v"])
def test_training_on_images_is_training_on_their_residuals(target):
    x_up, low = images("train")
    high = (x_up + 0.1 * torch.randn(x_up.shape, generator=keyed_generator(2, "high"))).clamp(-1, 1)
    config = model(target=target, residual="upsampled", residual_scale=SCALE)
    state = create_state(config, OptimizerConfig(), seed=0)
    ours = Trainer(config, OptimizerConfig(), 0).losses(state.model, batch_of(high, low), 0)
    plain = Trainer(model(target=target), OptimizerConfig(), 0)
    theirs = plain.losses(state.model, batch_of(Residual(x_up, SCALE).of(high), low), 0)
    assert torch.equal(ours.values, theirs.values)
    assert not torch.equal(ours.values, plain.losses(state.model, batch_of(high, low), 0).values) or target == "epsilon"


def test_a_scale_that_was_not_measured_is_an_error_that_says_where_it_comes_from():
    x_up, _ = images("missing")
    assert residual_of(model(), x_up) is None
    with pytest.raises(ConfigError, match=r"residual_scale: 0 numbers for 3 channels; `sr3 train` measures them"):
        residual_of(model(residual="upsampled"), x_up)


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        ({"residual_scale": SCALE}, "has no effect without a residual"),
        ({"residual": "upsampled", "residual_scale": (0.1, 0.0, 0.1)}, "not all positive and finite"),
        ({"residual": "upsampled", "residual_scale": (0.1, float("nan"), 0.1)}, "not all positive and finite"),
        ({"residual": "upsampled", "gamma_uniform_in": "steps", "bound_weight": 0.1}, "excludes bound_weight"),
    ],
)
def test_what_does_not_go_together_is_refused(objective, message):
    with pytest.raises(ConfigError, match=message):
        ObjectiveConfig(**objective)


def test_a_base_model_draws_images():
    unet = override(unet_tiny(16, 8), conditional=False)
    with pytest.raises(ConfigError, match="a base model has nothing to upsample"):
        ModelConfig(kind="base", high_size=16, unet=unet, objective=ObjectiveConfig(residual="upsampled"))


class Offset(UNet):
    """A regression that adds a constant to x_up."""

    def __init__(self, value: float) -> None:
        super().__init__(unet_tiny(16, 8))
        self.value = torch.nn.Parameter(torch.tensor(value))

    def forward(self, x_up, y_t, gamma, classes=None):
        assert x_up is not None
        assert not y_t.any()
        assert gamma.eq(1).all()
        return torch.ones_like(x_up) * self.value


def test_a_regression_that_adds_nothing_is_bicubic_upsampling():
    _, low = images("nothing")
    low = 0.5 * low  # so that bicubic upsampling stays within [-1, 1]
    x_up = upsample_bicubic(low, 16)
    high = (x_up + 0.1 * torch.randn(x_up.shape, generator=keyed_generator(3, "high"))).clamp(-1, 1)
    on_mean, on_upsampled = (
        model(target="v", residual=kind, residual_scale=SCALE) for kind in ("regression", "upsampled")
    )
    state = create_state(on_mean, OptimizerConfig(), seed=0)
    torch.nn.init.normal_(state.model.conv_out.weight, generator=keyed_generator(0, "out"))
    ours = Trainer(on_mean, OptimizerConfig(), 0, Offset(0.0)).losses(state.model, batch_of(high, low), 0)
    theirs = Trainer(on_upsampled, OptimizerConfig(), 0).losses(state.model, batch_of(high, low), 0)
    torch.testing.assert_close(ours.values, theirs.values)
    schedule = default_schedule(on_mean.noise_schedule, 4)
    ours = upscale(Stage("a", on_mean, state.model, schedule, Offset(0.0)), low, [1, 2])
    theirs = upscale(Stage("a", on_upsampled, state.model, schedule), low, [1, 2])
    torch.testing.assert_close(ours, theirs)


def test_the_chain_starts_from_the_regression():
    """The regression knows the image but for a grey level; a network that knows what remains finds it."""
    _, low = images("mean")
    low = 0.5 * low  # so that nothing is clipped
    x_up = upsample_bicubic(low, 16)
    config = model(target="y_0", residual="regression", residual_scale=SCALE)
    remains = -0.25 / (2 * torch.tensor(SCALE).view(3, 1, 1))
    seen = []

    class Known(UNet):
        def forward(self, x_up, y_t, gamma, classes=None):
            seen.append(x_up)
            return torch.zeros_like(y_t) + remains

    with torch.no_grad():
        schedule = default_schedule(config.noise_schedule, 4, SamplerConfig(algorithm="ddim", clip="none"))
        found = upscale(Stage("a", config, Known(config.unet), schedule, Offset(0.25)), low, [1, 2])
    torch.testing.assert_close(found, x_up, atol=0.02, rtol=0)
    assert all(torch.equal(each, (x_up + 0.25).clamp(-1, 1)) for each in seen), "it is the condition, too"


def test_training_leaves_the_regression_alone():
    x_up, low = images("frozen")
    config, optimizer, mean = model(residual="regression", residual_scale=SCALE), OptimizerConfig(), Offset(0.1)
    state = create_state(config, optimizer, seed=0)
    Trainer(config, optimizer, 0, mean).step(state, state.model, [batch_of(x_up, low)])
    assert mean.value.grad is None
    assert mean.value.item() == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("residual", "mean"), [("regression", None), ("upsampled", Offset(0.0)), ("none", Offset(0.0))]
)
def test_a_regression_is_there_exactly_if_the_chain_starts_from_one(residual, mean):
    config = model(residual=residual)
    with pytest.raises(ConfigError, match="regression is missing" if mean is None else "regression is not wanted"):
        Trainer(config, OptimizerConfig(), 0, mean)
    with pytest.raises(ConfigError, match="the stage's regression"):
        Stage("a", config, UNet(config.unet), None, mean)
