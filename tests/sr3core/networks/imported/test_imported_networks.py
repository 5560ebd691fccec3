"""Imported networks compute what their authors' do: compared with plain functions that share no code with them."""

from math import prod

import pytest
import torch
from torch import Tensor

from sr3core.diffusion.guidance import as_denoiser
from sr3core.diffusion.schedules import default_schedule, training_gammas
from sr3core.errors import ConfigError
from sr3core.hyperparameters import ModelConfig, UNetConfig
from sr3core.images.resize import upsample
from sr3core.networks.building import build_network
from sr3core.networks.imported.guided_diffusion import GuidedDiffusionUNet
from sr3core.networks.inference import InferenceNetwork
from sr3core.networks.network import Network
from sr3core.upscaling.cascade import upscale
from sr3core.upscaling.stage import Stage
from tests.sr3core.networks.imported import plain_guided_diffusion, plain_iterative_refinement
from tests.sr3core.networks.imported.small_models import (
    GUIDED_DIFFUSION,
    ITERATIVE_REFINEMENT,
    weights_of,
    with_dropout,
)

MODELS = [ITERATIVE_REFINEMENT, GUIDED_DIFFUSION]


def _loaded(model: ModelConfig, label: int = 3) -> tuple[Network, dict[str, Tensor]]:
    """The network with random weights, of the class `label` if it has classes, and these weights."""
    weights = weights_of(model)
    taken = {name: value.clone() for name, value in weights.items()}
    if (classes := taken.pop("label_emb.weight", None)) is not None:
        taken["time_embed.2.bias"] += classes[label]
    network = build_network(model).eval()
    network.load_state_dict(taken, strict=True)
    return network, weights


def _images(seed: int, side: int, count: int = 2) -> Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@torch.inference_mode()
def test_iterative_refinement_is_what_its_authors_compute():
    network, weights = _loaded(ITERATIVE_REFINEMENT)
    x_up, y_t, gamma = _images(0, 32), _images(1, 32), torch.tensor([0.9, 0.003])
    wanted = plain_iterative_refinement.epsilon(weights, 8, x_up, y_t, gamma.sqrt())
    torch.testing.assert_close(network(x_up, y_t, gamma), wanted, rtol=1e-5, atol=1e-5)
    assert wanted.std() > 0.1, "not a comparison of nothing with nothing"


@torch.inference_mode()
def test_guided_diffusion_is_what_its_authors_compute():
    network, weights = _loaded(GUIDED_DIFFUSION)
    low, y_t, steps = _images(0, 8), _images(1, 32), torch.tensor([17, 940])
    gamma = torch.tensor(training_gammas(GUIDED_DIFFUSION.noise_schedule))[steps + 1]
    wanted = plain_guided_diffusion.epsilon_and_v(weights, 8, 4, 3, low, y_t, steps, torch.tensor([3, 3]))
    x_up = upsample(low, 32, GUIDED_DIFFUSION.upsampling)
    torch.testing.assert_close(network(x_up, y_t, gamma), wanted, rtol=1e-5, atol=1e-5)
    assert wanted.std() > 0.1


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.unet.architecture)
def test_every_weight_and_input_counts(model):
    """So that the comparisons above look at all of the network."""
    network, _ = _loaded(model)
    inputs = [_images(0, 32, 1), _images(1, 32, 1), torch.tensor([0.4])]
    for value in inputs:
        value.requires_grad_()
    output = network(*inputs)
    (output * _images(2, 32, 2).view(1, -1, 32, 32)[:, : output.shape[1]]).sum().backward()
    for name, value in (*network.named_parameters(), *zip("xyg", inputs, strict=True)):
        assert value.grad.abs().max() > 1e-4, name


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.unet.architecture)
def test_a_whole_chain_runs_on_sizes_other_than_the_trained_one(model):
    network, _ = _loaded(model)
    schedule = default_schedule(model.noise_schedule, 3)
    made = upscale(Stage("s", model, network, schedule), _images(0, 6, 1)[..., :5], [0])
    assert made.shape == (1, 3, 24, 20)
    assert made.abs().max() <= 1


@torch.inference_mode()
@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.unet.architecture)
def test_bfloat16_is_near_float32(model):
    network, _ = _loaded(model)
    inputs = _images(0, 32), _images(1, 32), torch.tensor([0.9, 0.2])
    exact = network(*inputs)
    rounded = InferenceNetwork(network, precision="bfloat16")(*inputs)
    assert rounded.dtype == torch.float32
    error = (rounded - exact).square().mean().sqrt() / exact.std()
    assert 0 < error < 0.05


def test_dropout_is_off_when_sampling():
    network = build_network(with_dropout(ITERATIVE_REFINEMENT, 0.5)).eval()
    inputs = _images(0, 32), _images(1, 32), torch.tensor([0.9, 0.2])
    assert torch.equal(network(*inputs), network(*inputs))


def test_steps_are_whole_at_the_trained_levels_and_rise_between_them():
    network = build_network(GUIDED_DIFFUSION)
    assert isinstance(network, GuidedDiffusionUNet)
    levels = torch.tensor(training_gammas(GUIDED_DIFFUSION.noise_schedule))[1:]
    torch.testing.assert_close(network.step_of(levels), torch.arange(1000.0).double(), rtol=0, atol=1e-6)
    between = network.step_of((levels[1:] + levels[:-1]) / 2)
    assert bool(((between > torch.arange(999)) & (between < torch.arange(1, 1000))).all())
    outside = network.step_of(torch.tensor([1.0, 1 - 1e-6, 1e-6]))
    torch.testing.assert_close(outside, torch.tensor([0.0, 0.0, 999.0]).double(), rtol=0, atol=0)


@pytest.mark.parametrize("side", [8, 13])
def test_bilinear_upsampling_is_torchs(side):
    images = _images(0, side)
    wanted = torch.nn.functional.interpolate(images, (4 * side, 4 * side), mode="bilinear")
    torch.testing.assert_close(upsample(images, 4 * side, "bilinear"), wanted, rtol=1e-5, atol=1e-5)


def test_both_are_denoisers():
    for model in MODELS:
        network, _ = _loaded(model)
        denoise = as_denoiser(model, network)
        assert denoise(_images(0, 32), _images(1, 32), torch.tensor([0.5, 0.5])).shape[1] == network.out_channels


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_classes": 10}, "enlarges RGB images, without classes"),
        ({"conditional": False}, "enlarges RGB images"),
        ({"norm_groups": 5}, "norm_groups: 5 does not divide"),
        ({"architecture": "sr3", "norm_groups": 8}, "sr3 derives its groups"),
        ({"architecture": "unet"}, "architecture: unknown 'unet'"),
    ],
)
def test_what_an_architecture_does_not_have_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        UNetConfig(**{"image_size": 32, "base_channels": 32, "architecture": "guided_diffusion", **changes})


def test_the_published_number_of_parameters():
    """97,807,491 is what the re-implementation prints for its 16 -> 128 network."""
    shapes = plain_iterative_refinement.shapes_of(64, (1, 2, 4, 8, 8), 2, (16,), 128)
    assert sum(map(prod, shapes.values())) == 97_807_491
