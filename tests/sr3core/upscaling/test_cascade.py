"""Images from noise: a base model, then the stages that enlarge its samples (section 4.3)."""

from dataclasses import replace

import pytest
import torch

from sr3core.diffusion.schedules import default_schedule
from sr3core.errors import ConfigError
from sr3core.hyperparameters import (
    ModelConfig,
    NoiseScheduleConfig,
    ObjectiveConfig,
    OptimizerConfig,
    SamplerConfig,
    UNetConfig,
)
from sr3core.networks.architectures import unet_tiny
from sr3core.randomness import keyed_generator
from sr3core.training import create_state
from sr3core.upscaling.cascade import draw, generate, run_cascade
from sr3core.upscaling.stage import Stage

STEPS = 3


def moved(name, model, sampler=None):
    """A stage with weights that are random and nowhere zero."""
    network = create_state(model, OptimizerConfig(ema_decay=0), seed=0).model.eval()
    with torch.no_grad():
        for index, parameter in enumerate(network.parameters()):
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=keyed_generator(0, name, index)))
    return Stage(name, model, network, default_schedule(model.noise_schedule, STEPS, sampler))


def base(num_classes=None, sampler=None):
    unet = UNetConfig(
        image_size=8,
        base_channels=8,
        channel_multipliers=(1, 2),
        num_res_blocks=1,
        attention_sizes=(4,),
        conditional=False,
        num_classes=num_classes,
        learned_variance=num_classes is not None,
    )
    classes = {"gamma_uniform_in": "steps", "bound_weight": 0.001, "class_dropout": 0.1}
    objective = ObjectiveConfig(norm=2, **classes) if num_classes else None
    model = ModelConfig(kind="base", high_size=8, unet=unet, objective=objective or ObjectiveConfig(norm=2))
    return moved("base-8", model, sampler)


def sr3(low=8, high=16):
    return moved(f"{low}-{high}", ModelConfig(low_size=low, high_size=high, unet=unet_tiny(high, 8)))


def test_generation_is_the_base_models_images_through_the_cascade():
    stages = [base(), sr3(8, 16), sr3(16, 32)]
    seen = []
    images = generate(stages, [1, 2, 3], progress=lambda *step: seen.append(step))
    assert images.shape == (3, 3, 32, 32)
    torch.testing.assert_close(images, run_cascade(stages[1:], draw(stages[0], [1, 2, 3]), [1, 2, 3]))
    torch.testing.assert_close(generate(stages[:1], [2]), draw(stages[0], [2]))
    assert seen == [(step, 3 * STEPS) for step in range(1, 3 * STEPS + 1)]


def test_an_image_depends_on_its_seed_and_class_alone():
    stages = [base(num_classes=3), sr3()]
    images = generate(stages, [5, 6, 7, 6], [0, 1, 2, 2])
    for index, (seed, label) in enumerate([(5, 0), (6, 1), (7, 2), (6, 2)]):
        torch.testing.assert_close(generate(stages, [seed], [label])[0], images[index])
    assert float((images[1] - images[3]).abs().max()) > 1e-3  # the same noise, another class
    assert float((images[2] - images[3]).abs().max()) > 1e-3  # the same class, other noise
    torch.testing.assert_close(generate(stages, [5], [3]), generate(stages, [5]))  # "no class" is the default


def test_guidance_of_the_base_models_schedule_is_applied():
    plain, guided = (base(num_classes=3, sampler=SamplerConfig(guidance=weight)) for weight in (0.0, 2.0))
    assert float((draw(plain, [1], [0]) - draw(guided, [1], [0])).abs().max()) > 1e-3


def test_generation_needs_a_base_model_sizes_that_follow_and_known_classes():
    with pytest.raises(ConfigError, match="stage 8-16 is not a base model"):
        generate([sr3()], [0])
    with pytest.raises(ConfigError, match="base-8 ends at 8 pixels, but 16-32 starts at 16"):
        generate([base(), sr3(16, 32)], [0])
    with pytest.raises(ConfigError, match="the model was trained without classes"):
        generate([base()], [0], [1])
    with pytest.raises(ConfigError, match=r"classes: 4 is not in 0\.\.2"):
        generate([base(num_classes=3)], [0], [4])
    shorter = NoiseScheduleConfig(num_steps=100)
    with pytest.raises(ConfigError, match="gamma"):
        replace(base(), model=replace(base().model, noise_schedule=shorter))
