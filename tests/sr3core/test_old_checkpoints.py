"""A checkpoint of format version 1 is read, and training continues from it as the program that wrote it would have.

checkpoint_version_1.tar.xz was written by that program, of commit 65133d8: a tiny network after five steps, its values
rounded to bfloat16 so that the file stays small, and what the program made of it: the average's output, the next step's
loss and gradient norm, and some of the weights after that step.
"""

import tarfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sr3core.batch import Batch
from sr3core.checkpoint import list_checkpoints, restore, sampling_weights, save_checkpoint, take_snapshot, warm_start
from sr3core.config import override
from sr3core.diffusion.schedules import sample_gamma, step_of
from sr3core.errors import CheckpointError
from sr3core.hyperparameters import ModelConfig, OptimizerConfig, UNetConfig
from sr3core.images.resize import upsample_bicubic
from sr3core.networks.unet import UNet
from sr3core.networks.unet_weights import check_weights, load_weights
from sr3core.randomness import keyed_generator
from sr3core.training import Trainer, create_state

MODEL = ModelConfig(
    low_size=4,
    high_size=8,
    unet=UNetConfig(image_size=8, base_channels=4, channel_multipliers=(1, 1), num_res_blocks=1, attention_sizes=(4,)),
)
OPTIMIZER = OptimizerConfig(warmup_steps=2, ema_decay=0.9, learning_rate=1e-2, spike_factor=100.0)
NEW_NAMES = {
    "decoder.1.block.conv1.weight": "decoder.4x4_block1.conv1.weight",
    "encoder.2.attention.query_key_value.weight": "encoder.4x4_block0.attention.query_key_value.weight",
    "middle.1.block.conv2.weight": "middle.4x4_block1.conv2.weight",
    "conv_out.weight": "conv_out.weight",
}


@pytest.fixture
def folder(tmp_path):
    with tarfile.open(Path(__file__).with_name("checkpoint_version_1.tar.xz")) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path


def pixels(side):
    return torch.linspace(-1, 1, 6 * side**2).reshape(2, 3, side, side).sin()


def close(found, expected):
    """To rounding, which differs between processors; on the one that wrote the file all bits are the same."""
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def noise_of_version_1(objective, gammas, shape, seed, step, positions, device="cpu", corners=()):
    """The program's noise: generators of torch, on the CPU."""
    generators = [keyed_generator(seed, "noise", step, position) for position in positions]
    uniform = torch.stack([torch.rand(2, generator=generator, dtype=torch.float64) for generator in generators]).numpy()
    gamma = sample_gamma(gammas, uniform[:, 0], uniform[:, 1], objective.gamma_uniform_in)
    epsilon = torch.stack([torch.randn(tuple(shape[1:]), generator=generator) for generator in generators])
    return torch.as_tensor(gamma), epsilon, step_of(gammas, gamma)


def test_outputs_and_the_next_step_are_those_of_the_program_that_wrote_it(folder, monkeypatch):
    monkeypatch.setattr("sr3core.training.draw_noise", noise_of_version_1)
    monkeypatch.setattr("sr3core.training.average_decay", lambda decay, step: decay if step else 0.0)  # no warm-up then
    expected = load_file(folder / "expected.safetensors")
    (info,) = list_checkpoints(folder)
    assert info.state["format_version"] == 1
    state = create_state(MODEL, OPTIMIZER, seed=99)
    restore(info, state)
    assert state.ema is not None
    with torch.no_grad():
        close(state.ema(upsample_bicubic(pixels(4), 8), pixels(8), torch.tensor([0.3, 0.9])), expected["output"])
    batch = Batch(pixels(4), pixels(8).flip(-1), (0, 1))
    statistics = Trainer(MODEL, OPTIMIZER, 0).step(state, state.model, [batch])
    close(statistics.loss, expected["loss"][0])
    close(statistics.gradient_norm, expected["norm"][0])
    for old, new in NEW_NAMES.items():
        close(state.model.state_dict()[new], expected[f"model.{old}"])
        close(state.ema.state_dict()[new], expected[f"ema.{old}"])


def test_moments_are_taken_over_by_position(folder):
    """Adam's state has numbers for names, which hold as long as the parameters keep their order."""
    (info,) = list_checkpoints(folder)
    old_names = list(load_file(info.path / "model.safetensors"))
    saved = torch.load(info.path / "optimizer.pt", weights_only=True)["state"]
    state = create_state(MODEL, OPTIMIZER, seed=99)
    restore(info, state)
    assert len(saved) == len(old_names) == len(state.optimizer.state)
    for index, entry in enumerate(state.optimizer.state.values()):
        assert torch.equal(entry["exp_avg"], saved[index]["exp_avg"])
        assert torch.equal(entry["exp_avg_sq"], saved[index]["exp_avg_sq"])


def test_what_is_written_from_then_on_has_the_new_names(folder):
    (info,) = list_checkpoints(folder)
    state = create_state(MODEL, OPTIMIZER, seed=99)
    restore(info, state)
    path = save_checkpoint(folder / "new", take_snapshot(state), {})
    (new,) = list_checkpoints(folder / "new")
    assert new.state["format_version"] == 2
    old, weights = load_file(info.path / "ema.safetensors"), load_file(path / "ema.safetensors")
    assert set(weights) == set(UNet(MODEL.unet).state_dict())
    for name_then, name_now in NEW_NAMES.items():
        assert torch.equal(weights[name_now], old[name_then])
    again = create_state(MODEL, OPTIMIZER, seed=7)
    restore(new, again)
    for weight, before in zip(again.model.parameters(), state.model.parameters(), strict=True):
        assert torch.equal(weight, before)


def test_old_weights_start_a_new_training_and_serve_sampling(folder):
    (info,) = list_checkpoints(folder)
    warm_start(folder / "warm", MODEL, OPTIMIZER, 0, sampling_weights(info))
    (started,) = list_checkpoints(folder / "warm")
    networks = [UNet(MODEL.unet), UNet(MODEL.unet)]
    load_weights(networks[0], sampling_weights(info))
    load_weights(networks[1], sampling_weights(started))
    for one, other in zip(networks[0].parameters(), networks[1].parameters(), strict=True):
        assert torch.equal(one, other)


def test_old_weights_of_another_network_are_refused(folder):
    (info,) = list_checkpoints(folder)
    with torch.device("meta"):
        check_weights(UNet(MODEL.unet), sampling_weights(info))
        with pytest.raises(CheckpointError, match=r"does not fit the model: decoder\.0\.attention\.\S+ is unexpected"):
            check_weights(UNet(override(MODEL.unet, attention_sizes=())), sampling_weights(info))
