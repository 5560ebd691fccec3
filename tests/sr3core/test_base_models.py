"""Base models: the same network, step and noise as SR3, without a condition and with classes."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from sr3core.batch import Batch
from sr3core.diffusion.equations import denoising_loss, q_sample
from sr3core.diffusion.guidance import as_denoiser
from sr3core.diffusion.learned_variance import bound_term, split_variance
from sr3core.diffusion.noise import ImageNoise
from sr3core.diffusion.sampling import sample
from sr3core.diffusion.schedules import default_schedule, training_gammas
from sr3core.errors import ConfigError
from sr3core.hyperparameters import ModelConfig, NoiseScheduleConfig, ObjectiveConfig, OptimizerConfig, UNetConfig
from sr3core.networks.architectures import unet_tiny
from sr3core.networks.unet import UNet
from sr3core.randomness import keyed_generator
from sr3core.training import Trainer, create_state, draw_noise, hide_classes
from sr3core.upscaling.cascade import upscale
from sr3core.upscaling.stage import Stage, check_chain

OPTIMIZER = OptimizerConfig(learning_rate=3e-3, warmup_steps=20, ema_decay=0.95, gradient_clip=1.0)
LEARNED = ObjectiveConfig(norm=2, gamma_uniform_in="steps", bound_weight=0.001)


def unet(**changes):
    return UNetConfig(
        **{
            "image_size": 8,
            "base_channels": 16,
            "channel_multipliers": (1, 2),
            "num_res_blocks": 1,
            "attention_sizes": (4,),
            "conditional": False,
            **changes,
        }
    )


def base(objective=None, **unet_changes):
    return ModelConfig(
        kind="base",
        high_size=8,
        unet=unet(**unet_changes),
        noise_schedule=NoiseScheduleConfig(family="cosine", num_steps=200),
        objective=objective or ObjectiveConfig(),
    )


def colours(step, size=16):
    """Red images of class 0 and blue ones of class 1, each of its own brightness, in 256 grey levels."""
    classes = torch.arange(size) % 2
    shades = torch.rand(size, 1, generator=keyed_generator(0, "shade", step)) * 0.4 + 0.5
    signs = torch.tensor([[1.0, -1.0, -1.0], [-1.0, -1.0, 1.0]])[classes]
    pixels = (signs * shades)[:, :, None, None].expand(-1, -1, 8, 8)
    high = ((pixels + 1) * 127.5).round() / 127.5 - 1
    return Batch(None, high, tuple(range(size)), (), classes)


def moved(model):
    network = UNet(model.unet).eval()
    with torch.no_grad():
        for index, parameter in enumerate(network.parameters()):
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(index)))
    return network


def trained(model, steps):
    state, trainer = create_state(model, OPTIMIZER, 0), Trainer(model, OPTIMIZER, 0)
    losses = [float(trainer.step(state, state.model, [colours(step)]).loss) for step in range(steps)]
    return state.ema.eval(), losses


def test_a_base_model_learns_two_colours_and_the_class_chooses_between_them():
    model = base(ObjectiveConfig(norm=2, target="v", class_dropout=0.2), num_classes=2)
    network, losses = trained(model, 300)
    assert np.mean(losses[-20:]) < 0.3 * np.mean(losses[:5])
    schedule = default_schedule(model.noise_schedule, 20)
    classes = torch.arange(12) % 2
    for guidance in (0.0, 1.0):
        denoise = as_denoiser(model, network, classes, guidance)
        images = sample(denoise, None, (12, 3, 8, 8), schedule, ImageNoise(range(12)))
        means = images.mean((2, 3))
        redness = means[:, 0] - means[:, 2]
        assert bool((redness[classes == 0] > 0.6).all()), redness
        assert bool((redness[classes == 1] < -0.6).all()), redness
    means = sample(as_denoiser(model, network), None, (16, 3, 8, 8), schedule, ImageNoise(range(16))).mean((2, 3))
    assert {bool(red > blue) for red, blue in zip(means[:, 0], means[:, 2], strict=True)} == {True, False}


def test_a_learned_variance_is_learned_with_the_hybrid_loss():
    """After training, the variance that the network says has a lower bound than either end of its range."""
    model = base(LEARNED, learned_variance=True)
    network, losses = trained(model, 150)
    assert np.mean(losses[-20:]) < 0.5 * np.mean(losses[:5])
    gammas = training_gammas(model.noise_schedule)
    batch = replace(colours(10**6, 64), classes=None)
    t = np.arange(64) % 20 + 2  # where the two ends differ
    gamma, previous = torch.tensor(gammas[t]), torch.tensor(gammas[t - 1])
    epsilon = torch.randn(batch.high.shape, generator=torch.Generator().manual_seed(0))
    y_t = q_sample(batch.high, gamma, epsilon)
    with torch.no_grad():
        epsilon_hat, fraction = split_variance(network(None, y_t, gamma), 3)
    assert fraction is not None
    bounds = {
        name: float(bound_term(batch.high, y_t, previous, gamma, epsilon_hat, value).mean())
        for name, value in {
            "learned": fraction,
            "smallest": torch.zeros_like(fraction),
            "largest": torch.ones_like(fraction),
        }.items()
    }
    assert bounds["learned"] < min(bounds["smallest"], bounds["largest"]), bounds


def test_the_hybrid_loss_is_its_two_parts_and_the_bound_leaves_the_mean_alone():
    model = base(LEARNED, learned_variance=True)
    trainer, network, batch = Trainer(model, OPTIMIZER, 3), moved(model), replace(colours(0, 6), classes=None)
    gammas = training_gammas(model.noise_schedule)
    gamma, epsilon, t = draw_noise(LEARNED, gammas, batch.high.shape, 3, 7, batch.positions)
    y_t = q_sample(batch.high, gamma, epsilon)
    epsilon_hat, fraction = split_variance(network(None, y_t, gamma), 3)
    assert fraction is not None
    bound = bound_term(batch.high, y_t, torch.tensor(gammas[t - 1]), gamma, epsilon_hat, fraction)
    expected = denoising_loss(epsilon_hat, epsilon, 2) + 0.001 * 200 * bound
    found = trainer.losses(network, batch, 7)
    torch.testing.assert_close(found.values, expected)
    np.testing.assert_array_equal(found.steps, t)

    def gradient(loss):
        network.zero_grad()
        loss.backward(retain_graph=True)
        return network.conv_out.weight.grad.clone()

    hybrid, simple = gradient(found.values.sum()), gradient(denoising_loss(epsilon_hat, epsilon, 2).sum())
    torch.testing.assert_close(hybrid[:3], simple[:3])
    assert float(hybrid[3:].abs().max()) > 0
    assert float(simple[3:].abs().max()) == 0


def test_which_classes_are_hidden_does_not_depend_on_the_number_of_workers():
    classes = torch.arange(4000) % 5
    whole = hide_classes(classes, 5, 0.3, 1, 7, range(4000))
    parts = [hide_classes(classes[rank::4], 5, 0.3, 1, 7, range(rank, 4000, 4)) for rank in range(4)]
    for rank, part in enumerate(parts):
        torch.testing.assert_close(part, whole[rank::4], rtol=0, atol=0)
    assert float((whole == 5).float().mean()) == pytest.approx(0.3, abs=0.03)
    torch.testing.assert_close(whole[whole != 5], classes[whole != 5])
    assert not torch.equal(whole, hide_classes(classes, 5, 0.3, 1, 8, range(4000)))
    torch.testing.assert_close(hide_classes(classes, 5, 0.0, 1, 7, range(4000)), classes)


@pytest.mark.parametrize("target", ["epsilon", "v"])
def test_guidance_moves_away_from_no_class_and_keeps_the_classes_variance(target):
    model = base(replace(LEARNED, target=target, class_dropout=0.1), num_classes=2, learned_variance=True)
    network, y_t = moved(model), torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    gamma, classes = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64), torch.tensor([0, 1, 1])
    with torch.no_grad():
        guided = as_denoiser(model, network, classes, 1.5)(None, y_t, gamma)
        with_class = as_denoiser(model, network, classes)(None, y_t, gamma)
        without = as_denoiser(model, network)(None, y_t, gamma)
    assert guided.shape == (3, 6, 8, 8)
    torch.testing.assert_close(guided[:, :3], 2.5 * with_class[:, :3] - 1.5 * without[:, :3], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(guided[:, 3:], with_class[:, 3:])
    assert float((with_class - without).abs().max()) > 1e-3


def test_classes_that_a_model_does_not_have_are_refused():
    model = base(ObjectiveConfig(class_dropout=0.1), num_classes=2)
    network = UNet(model.unet)
    as_denoiser(model, network, torch.tensor([0, 2]), guidance=1.0)  # 2 is "no class"
    with pytest.raises(ConfigError, match=r"classes: 3 is not in 0\.\.1"):
        as_denoiser(model, network, torch.tensor([0, 3]))
    with pytest.raises(ConfigError, match=r"classes: -1 is not in 0\.\.1"):
        as_denoiser(model, network, torch.tensor([0, -1]))
    with pytest.raises(ConfigError, match=r"guidance: 1\.0 must be at least 0, and 0 without classes"):
        as_denoiser(model, network, guidance=1.0)
    for classes, guidance in ((torch.tensor([0]), 0.0), (None, 1.0)):
        with pytest.raises(ConfigError, match="trained without classes"):
            as_denoiser(base(), UNet(base().unet), classes, guidance)


def test_a_model_that_never_saw_images_of_no_class_makes_none_and_is_not_guided():
    model = base(num_classes=2)
    network = UNet(model.unet)
    as_denoiser(model, network, torch.tensor([0, 1]))
    for classes, guidance in ((None, 0.0), (torch.tensor([0]), 1.0)):
        with pytest.raises(ConfigError, match="has learned nothing about images without a class"):
            as_denoiser(model, network, classes, guidance)
    with pytest.raises(ConfigError, match=r"classes: 2 is not in 0\.\.1"):
        as_denoiser(model, network, torch.tensor([2]))


def test_a_batch_moves_and_splits_with_its_classes():
    batch = colours(0, 8)
    parts = batch.to("cpu").split(4)
    classes = [part.classes for part in parts if part.classes is not None]
    assert len(classes) == len(parts)
    torch.testing.assert_close(torch.cat(classes), batch.classes)
    torch.testing.assert_close(torch.cat([part.high for part in parts]), batch.high)
    assert [part.low for part in parts] == [None] * 4
    assert sum((part.positions for part in parts), ()) == batch.positions


def test_a_base_model_starts_a_cascade_and_upscales_nothing():
    first = Stage("base-8", base(), UNet(base().unet), default_schedule(NoiseScheduleConfig(), 2))
    model = ModelConfig(low_size=8, high_size=16, unet=unet_tiny(16, 8))
    check_chain([("base-8", base()), ("8-16", model)])
    with pytest.raises(ConfigError, match="base-8 is a base model, which takes no image from 8-16"):
        check_chain([("8-16", model), ("base-8", base())])
    with pytest.raises(ConfigError, match="base-8 ends at 8 pixels, but 8-16 starts at 4"):
        check_chain([("base-8", base()), ("8-16", replace(model, low_size=4))])
    with pytest.raises(ConfigError, match="a base model of 8 pixels magnifies nothing"):
        upscale(first, torch.zeros(1, 3, 8, 8), [0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "base", "low_size": 4}, "low_size: 4, but a base model has no low-resolution input"),
        ({"kind": "base", "unet": unet(conditional=True)}, "unet.conditional: a base model needs False"),
        ({"kind": "sr3"}, "low_size: missing; only a base model has none"),
        (
            {"kind": "sr3", "low_size": 4, "unet": unet(conditional=True, num_classes=2)},
            "only a base model takes classes",
        ),
        ({"unet": unet(learned_variance=True)}, "a variance is learned by the bound"),
        ({"objective": LEARNED}, "a variance is learned by the bound"),
        (
            {"objective": ObjectiveConfig(class_dropout=0.1)},
            "objective.class_dropout: 0.1, but unet.num_classes is None",
        ),
        (
            {
                "kind": "regression",
                "low_size": 4,
                "unet": unet(conditional=True, learned_variance=True),
                "objective": LEARNED,
            },
            "regression has no reverse step",
        ),
    ],
)
def test_models_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        ModelConfig(**{"kind": "base", "high_size": 8, "unet": unet(), **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bound_weight": 0.001}, "gamma_uniform_in: 'gamma' draws levels between the steps"),
        ({"bound_weight": -1.0}, "bound_weight: -1.0 is negative"),
        ({"class_dropout": 1.5}, "class_dropout: 1.5 is not in"),
    ],
)
def test_objectives_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        ObjectiveConfig(**changes)
