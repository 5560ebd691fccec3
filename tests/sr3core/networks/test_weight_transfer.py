"""Another network's weights are taken over level by level, whole or by groups of channels, or refused by name."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from sr3core.errors import CheckpointError
from sr3core.hyperparameters import UNetConfig
from sr3core.networks.unet import UNet
from sr3core.networks.weight_transfer import transfer_weights


def network(seed: int, **changes) -> UNet:
    """A tiny network without a weight that is zero."""
    made = UNet(
        UNetConfig(**{"image_size": 16, "base_channels": 8, "channel_multipliers": (1, 2), "num_res_blocks": 1,
                      "attention_sizes": (8,), **changes})
    )  # fmt: skip
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return made.eval()


def saved(net: UNet, folder: Path) -> Path:
    save_file({name: value.contiguous() for name, value in net.state_dict().items()}, folder / "a.safetensors")
    return folder / "a.safetensors"


def images(side: int, channels: int = 3) -> Tensor:
    return torch.randn(2, channels, side, side, generator=torch.Generator().manual_seed(side))


GAMMA = torch.tensor([0.3, 0.8])


@torch.no_grad()
def test_a_network_for_another_size_computes_what_the_parent_does(tmp_path):
    parent, child = network(0), network(1, image_size=64, attention_sizes=(32,))
    transfer = transfer_weights(child, saved(parent, tmp_path))
    assert (transfer.misfits, transfer.anew) == ((), ())
    x_up, y_t = images(32), images(32).flip(0)
    torch.testing.assert_close(child(x_up, y_t, GAMMA), parent(x_up, y_t, GAMMA), rtol=0, atol=0)


def test_what_does_not_fit_is_named_and_nothing_changes(tmp_path):
    path = saved(network(0, num_classes=3, attention_sizes=()), tmp_path)
    child = network(1)
    before = {name: value.clone() for name, value in child.state_dict().items()}
    with pytest.raises(
        CheckpointError, match=r"query_key_value.*is missing, the model has \(48, 16, 1, 1\)"
    ) as refusal:
        transfer_weights(child, path)
    assert "does not fit the model" in str(refusal.value)
    assert all(torch.equal(value, before[name]) for name, value in child.state_dict().items())
    transfer = transfer_weights(child, path, partial=True)
    assert transfer.anew
    assert all("attention" in name for name in transfer.anew)
    assert "embed_class.weight is not in the model" in transfer.misfits
    assert all(torch.equal(value, before[name]) for name, value in child.state_dict().items() if name in transfer.anew)


@torch.no_grad()
def test_an_unconditional_parent_gives_a_conditional_network_that_begins_as_it(tmp_path):
    parent, child = network(0, conditional=False), network(1)
    transfer = transfer_weights(child, saved(parent, tmp_path), partial=True)
    assert (transfer.in_part, transfer.anew) == (("conv_in.weight",), ())
    y_t = images(16)
    torch.testing.assert_close(child(images(16).flip(0), y_t, GAMMA), parent(None, y_t, GAMMA), rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_a_conditional_parent_gives_a_base_model_its_weights_of_the_noisy_image(tmp_path):
    parent, child = network(0), network(1, conditional=False)
    transfer_weights(child, saved(parent, tmp_path), partial=True)
    assert torch.equal(child.conv_in.weight, parent.conv_in.weight[:, 3:])


@torch.no_grad()
def test_a_learned_variance_is_added_to_the_parents_prediction(tmp_path):
    parent, child = network(0), network(1, learned_variance=True)
    own = child.conv_out.weight.clone()
    transfer = transfer_weights(child, saved(parent, tmp_path), partial=True)
    assert transfer.in_part == ("conv_out.weight", "conv_out.bias")
    assert torch.equal(child.conv_out.weight[3:], own[3:])
    x_up, y_t = images(16), images(16).flip(0)
    torch.testing.assert_close(child(x_up, y_t, GAMMA)[:, :3], parent(x_up, y_t, GAMMA), rtol=1e-5, atol=1e-6)


def test_levels_are_matched_from_the_finest(tmp_path):
    parent, child = network(0, attention_sizes=()), network(1, channel_multipliers=(1, 2, 2), attention_sizes=())
    transfer = transfer_weights(child, saved(parent, tmp_path), partial=True)
    assert {"encoder.16x16_block0.conv1.weight", "encoder.8x8_block0.conv1.weight"} <= set(transfer.whole)
    assert "middle.4x4_block0.conv1.weight" in transfer.whole
    assert any(name.startswith("encoder.4x4") for name in transfer.anew)


def test_a_first_layer_that_does_not_fit_is_an_error_and_so_are_damaged_files(tmp_path):
    path = saved(network(0, base_channels=16), tmp_path)
    with pytest.raises(
        CheckpointError, match=r"not even its first layer fits the model: .*conv_in\.weight is \(16, 6, 3, 3\)"
    ):
        transfer_weights(network(1), path, partial=True)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"a\.safetensors cannot be read as safetensors"):
        transfer_weights(network(1), path, partial=True)
    broken = network(0)
    with torch.no_grad():
        broken.conv_in.bias[0] = float("nan")
    with pytest.raises(CheckpointError, match=r"not finite, in conv_in\.bias"):
        transfer_weights(network(1), saved(broken, tmp_path))
