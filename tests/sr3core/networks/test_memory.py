"""The memory of a training step, counted without a GPU: against what autograd saves, and what the presets promise."""

import pytest
import torch
from torch.nn import functional

from pipelines.settings.presets import PRESETS, preset
from pipelines.training.resources import describe_memory, memory_of
from sr3core.config import override
from sr3core.hyperparameters import ModelConfig
from sr3core.networks.architectures import unet_256_1024, unet_tiny
from sr3core.networks.memory import saved_activations, training_memory
from sr3core.networks.unet import UNet, num_parameters
from sr3core.sizes import sides_of

GPU_STAGES = [
    pytest.param(stage, id=f"{name}-{stage.name}")
    for name in PRESETS
    for stage in preset(name).stages
    if stage.placement.use_gpu
]


def as_on_a_gpu(h, conv):
    """A CPU merges doubling and convolution, and saves a map of a quarter of the size."""
    return conv(functional.interpolate(h, scale_factor=2, mode="nearest"))


def kept_by_autograd(network: UNet) -> int:
    """Bytes of all tensors that a real forward pass on the CPU saves, but the weights."""
    weights, kept = {weight.untyped_storage().data_ptr() for weight in network.parameters()}, {}

    def save(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    sides = sides_of(network.config.image_size)
    with torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
        output = network(torch.randn(1, 3, *sides), torch.randn(1, 3, *sides), torch.ones(1))
    assert output.requires_grad
    return sum(size for size, _ in kept.values())


def test_what_is_counted_is_what_autograd_saves(monkeypatch):
    monkeypatch.setattr("sr3core.networks.blocks.convolve_doubled", as_on_a_gpu)
    network = UNet(unet_tiny(64, 16)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    with torch.device("meta"):
        counted = saved_activations(UNet(unet_tiny(64, 16)))
    kept = kept_by_autograd(network)
    assert kept <= counted.of_blocks + counted.of_ends <= 1.1 * kept


def test_recomputation_keeps_each_blocks_inputs_once():
    with torch.device("meta"):
        counted = saved_activations(UNet(unet_tiny(64, 16)))
    assert counted.recomputed < counted.of_blocks / 2
    model = ModelConfig(low_size=256, high_size=1024, unet=unet_256_1024())
    whole, recomputed = (
        training_memory(model, "bfloat16", 32, 4, recomputes=recomputes) for recomputes in (False, True)
    )
    assert recomputed.saved < whole.saved / 3


def test_the_parts_are_those_of_the_weights_and_the_images():
    model = ModelConfig(low_size=16, high_size=64, unet=unet_tiny(64, 16))
    with torch.device("meta"):
        weights = 4 * num_parameters(UNet(model.unet))
    budget = training_memory(model, "float32", num_images=8)
    assert budget.state == 5 * weights, "weights, average, two moments, gradients"
    assert training_memory(model, "float32", 8, averages=False).state == 4 * weights
    halved, rounded = training_memory(model, "float32", 8, num_micro_batches=2), training_memory(model, "bfloat16", 8)
    assert halved.saved == budget.saved // 2
    assert rounded.saved < 0.6 * budget.saved
    assert rounded.state == 5.5 * weights


def test_crops_need_the_activations_of_crops_and_the_inputs_of_whole_images():
    whole = ModelConfig(low_size=16, high_size=128, unet=unet_tiny(128, 16))
    crops = override(whole, unet__image_size=64)
    small = ModelConfig(low_size=8, high_size=64, unet=unet_tiny(64, 16))
    one, other, least = (training_memory(model, "bfloat16", 8) for model in (whole, crops, small))
    assert other.saved == least.saved < one.saved / 3
    assert other.images - least.images == 8 * 2 * 4 * 3 * 128**2, "x_up of whole images, twice"


@pytest.mark.parametrize("stage", GPU_STAGES)
def test_every_preset_fits_its_gpus_with_a_tenth_to_spare(stage):
    """8 GPUs of 80 GB, Table A.1's networks at full width."""
    assert stage.placement.num_workers == 8
    assert memory_of(stage).total < 0.9 * 80e9


def test_what_does_not_fit_is_said_with_what_helps():
    stage = override(preset("imagenet-64-256").stages[0], num_micro_batches=1, precision="float32")
    said = describe_memory(stage, 80)
    assert said.startswith("a step needs ")
    assert "149.9 activations of 32 images at a time" in said
    assert said.endswith("raise num_micro_batches, set placement.recompute_activations, or precision bfloat16")
    assert "does not fit" not in describe_memory(preset("imagenet-64-256").stages[0], 80)
