"""Algorithm 1, its state, checkpoints and cascades, on real photos."""

import json
from contextlib import contextmanager
from typing import Literal

import numpy as np
import pytest
import torch
from PIL import Image

from sr3core.batch import Batch
from sr3core.checkpoint import (
    list_checkpoints,
    read_info,
    restore,
    sampling_weights,
    save_checkpoint,
    take_snapshot,
)
from sr3core.diffusion.schedules import default_schedule, training_gammas
from sr3core.errors import CheckpointError, ConfigError
from sr3core.hyperparameters import ModelConfig, NoiseScheduleConfig, ObjectiveConfig, OptimizerConfig, UNetConfig
from sr3core.images.pixels import to_float
from sr3core.images.resize import resize_area, resize_bicubic, upsample_bicubic
from sr3core.networks.architectures import unet_tiny
from sr3core.networks.unet import UNet
from sr3core.networks.unet_weights import load_weights
from sr3core.regression import regress
from sr3core.training import Trainer, create_state, draw_noise
from sr3core.update_rules import learning_rate_at
from sr3core.upscaling.cascade import run_cascade, upscale
from sr3core.upscaling.stage import Stage, check_chain

OPTIMIZER = OptimizerConfig(learning_rate=2e-3, warmup_steps=5, ema_decay=0.9, gradient_clip=1.0)


def model(kind: Literal["sr3", "regression"] = "sr3", low=8, high=16, **objective):
    return ModelConfig(
        kind=kind, low_size=low, high_size=high, unet=unet_tiny(high, 8), objective=ObjectiveConfig(**objective)
    )


@pytest.fixture(scope="module")
def batch(photos):
    pictures = [np.asarray(Image.open(path)) for path in sorted(photos.glob("*.jpg"))[:8]]
    high = np.stack([resize_area(picture, 16) for picture in pictures])
    low = np.stack([resize_bicubic(picture, 8) for picture in high])
    return Batch(to_float(low), to_float(high), tuple(range(8)), tuple(f"key{i}" for i in range(8)))


def train(config, batch, steps, seed=0, micro_batches=1):
    state = create_state(config, OPTIMIZER, seed)
    trainer = Trainer(config, OPTIMIZER, seed)
    losses = [float(trainer.step(state, state.model, batch.split(micro_batches)).loss) for _ in range(steps)]
    return state, losses


@pytest.mark.parametrize(
    "config",
    [model(), model(norm=2), model(target="v"), model(target="y_0"), model(kind="regression", norm=2)],
    ids=["epsilon-L1", "epsilon-L2", "v", "y_0", "regression"],
)
def test_training_learns(config, batch):
    """By the loss at noise that training does not see, the same before and after."""

    def held_out(state):
        with torch.no_grad():
            losses = [Trainer(config, OPTIMIZER, 0).losses(state.model, batch, step, 1).values for step in range(8)]
        return float(torch.cat(losses).mean())

    state, _ = train(config, batch, 60)
    assert held_out(state) < 0.75 * held_out(create_state(config, OPTIMIZER, 0))


def test_noise_depends_on_seed_step_and_position_alone():
    gammas = training_gammas(NoiseScheduleConfig())
    together = draw_noise(ObjectiveConfig(), gammas, (4, 3, 8, 8), 1, 7, (0, 1, 2, 3))
    apart = draw_noise(ObjectiveConfig(), gammas, (2, 3, 8, 8), 1, 7, (3, 1))
    for whole, part in zip(together, apart, strict=True):
        torch.testing.assert_close(whole[[3, 1]], part, rtol=0, atol=0)
    other_step = draw_noise(ObjectiveConfig(), gammas, (1, 3, 8, 8), 1, 8, (3,))
    assert not torch.equal(other_step[1], apart[1][:1])
    assert len(set(together[0].tolist())) == 4, "one noise level a sample, not one a batch"


def test_a_seed_starts_from_the_weights_that_it_always_did():
    """The layer that is drawn last tells of any change in what is drawn before it."""
    network = create_state(model(), OPTIMIZER, 0).model
    assert len(network.state_dict()) == 206
    last = network.get_parameter("decoder.16x16_block1.conv1.weight")[0, 0, 0]
    torch.testing.assert_close(last, torch.tensor([-0.005789578, 0.108703613, -0.061596297]), rtol=1e-5, atol=1e-7)


def test_gradient_accumulation_equals_the_larger_batch(batch):
    whole, losses = train(model(), batch, 3)
    parts, losses_of_parts = train(model(), batch, 3, micro_batches=4)
    np.testing.assert_allclose(losses, losses_of_parts, rtol=1e-5)
    for a, b in zip(whole.model.parameters(), parts.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_gradients_are_averaged_over_workers_with_the_last_micro_batch_alone(batch):
    entered, calls = [], []

    @contextmanager
    def without_sync():
        entered.append(len(calls))
        yield

    def forward(*inputs):
        calls.append(inputs)
        return state.model(*inputs)

    state = create_state(model(), OPTIMIZER, 0)
    Trainer(model(), OPTIMIZER, 0).step(state, forward, batch.split(3), without_sync=without_sync)
    assert len(calls) == 3
    assert entered == [0, 1], "before the first and the second of three"


def test_the_rate_rises_linearly_and_then_stays():
    config = OptimizerConfig(learning_rate=1.0, warmup_steps=4)
    assert [learning_rate_at(config, step) for step in range(6)] == [0.25, 0.5, 0.75, 1, 1, 1]
    assert learning_rate_at(OptimizerConfig(learning_rate=1.0, warmup_steps=0), 0) == 1


def test_the_average_is_the_exponential_one_after_its_warm_up(batch):
    """Decays of 2/11, 3/12 and 4/13 follow the first step, whose weights it starts from."""
    config, trainer_config = model(), OPTIMIZER
    state, trainer = create_state(config, trainer_config, 0), Trainer(config, trainer_config, 0)
    expected = None
    for decay in (0, 2 / 11, 3 / 12, 4 / 13):
        trainer.step(state, state.model, [batch])
        weights = state.model.conv_in.weight.detach().clone()
        expected = weights if expected is None else decay * expected + (1 - decay) * weights
    torch.testing.assert_close(state.ema.conv_in.weight, expected)


def test_a_restored_run_goes_on_bit_for_bit(tmp_path, batch):
    config = model()
    straight, _ = train(config, batch, 8)
    half, _ = train(config, batch, 5)
    save_checkpoint(tmp_path, take_snapshot(half), {"note": 1})
    info = list_checkpoints(tmp_path)[-1]
    resumed = create_state(config, OPTIMIZER, seed=99)
    restore(info, resumed)
    trainer = Trainer(config, OPTIMIZER, 0)
    for _ in range(3):
        trainer.step(resumed, resumed.model, [batch])
    for name, value in straight.model.state_dict().items():
        torch.testing.assert_close(resumed.model.state_dict()[name], value, rtol=0, atol=0)
    for name, value in straight.ema.state_dict().items():
        torch.testing.assert_close(resumed.ema.state_dict()[name], value, rtol=0, atol=0)
    assert info.state["note"] == 1


def test_moments_of_an_optimizer_with_other_settings_and_memory_are_taken_over(tmp_path, batch):
    """As of a checkpoint that was written before updates were fused, or by a trainer that uses no channels_last."""
    state, _ = train(model(), batch, 3)
    plain, original = take_snapshot(state), take_snapshot(state)
    for entry in plain.optimizer["state"].values():
        for name in ("exp_avg", "exp_avg_sq"):
            entry[name] = entry[name].contiguous()
    plain.optimizer["param_groups"][0].update(fused=None, foreach=True, lr=123.0)
    ends = []
    for number, snapshot in enumerate((plain, original)):
        resumed = create_state(model(), OPTIMIZER, seed=99)
        restore(read_info(save_checkpoint(tmp_path / str(number), snapshot, {})), resumed)
        Trainer(model(), OPTIMIZER, 0).step(resumed, resumed.model, [batch])
        ends.append(resumed.model.state_dict())
    assert {name: value.tolist() for name, value in ends[0].items()} == {
        name: value.tolist() for name, value in ends[1].items()
    }


def test_checkpoints_that_are_damaged_unfinished_or_foreign_are_named(tmp_path, batch):
    state, _ = train(model(), batch, 1)
    path = save_checkpoint(tmp_path, take_snapshot(state), {})
    (tmp_path / ".writing-step-00000009-1").mkdir()
    (tmp_path / "step-00000007").mkdir()  # no state.json: never committed
    assert [info.step for info in list_checkpoints(tmp_path)] == [1]

    other = create_state(model(low=4), OPTIMIZER, 0)
    restore(read_info(path), other)  # the same network
    with pytest.raises(CheckpointError, match=r"does not fit the model: .*(missing|unexpected|the model has)"):
        load_weights(UNet(unet_tiny(16, 12)), sampling_weights(read_info(path)))

    weights = path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x00")
    damaged = weights.read_bytes()
    weights.write_bytes(damaged[:1000])
    with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged"):
        restore(read_info(path), create_state(model(), OPTIMIZER, 0))
    weights.unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors is missing"):
        restore(read_info(path), create_state(model(), OPTIMIZER, 0))

    content = json.loads((path / "state.json").read_text())
    (path / "state.json").write_text(json.dumps({**content, "format_version": 99}))
    with pytest.raises(CheckpointError, match="format version 99, this program reads 1 and 2"):
        read_info(path)
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        read_info(tmp_path)


def stage(name, low, high, kind: Literal["sr3", "regression"] = "sr3", steps=3):
    config = model(kind, low, high)
    network = UNet(config.unet).eval()
    with torch.no_grad():
        for index, parameter in enumerate(network.parameters()):
            noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(index))
            parameter.add_(0.05 * noise)
    schedule = default_schedule(NoiseScheduleConfig(), steps) if kind == "sr3" else None
    return Stage(name, config, network, schedule)


def test_an_untrained_regression_is_bicubic(batch):
    config = model("regression")
    x_up = upsample_bicubic(batch.low, 16)
    torch.testing.assert_close(regress(UNet(config.unet), x_up, 3), x_up)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (7, 13), (1, 9), (1, 1)])
def test_a_cascade_takes_images_of_any_size_one_pixel_too(height, width):
    low = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0)) * 2 - 1
    high = run_cascade([stage("a", 8, 16), stage("b", 16, 32)], low, [1, 2])
    assert high.shape == (2, 3, 4 * height, 4 * width)
    assert float(high.abs().max()) <= 1


def test_a_cascades_images_do_not_depend_on_the_batch(batch):
    stages = [stage("a", 8, 16), stage("b", 16, 32)]
    seeds = list(range(8))
    whole = run_cascade(stages, batch.low, seeds)
    parts = torch.cat([run_cascade(stages, batch.low[i : i + 3], seeds[i : i + 3]) for i in (0, 3, 6)])
    # Convolutions may round differently by batch size: a hundredth of a grey level, not more.
    torch.testing.assert_close(whole, parts, rtol=0, atol=1e-4)
    other = run_cascade(stages, batch.low, [seed + 100 for seed in seeds])
    assert float((whole - other).abs().max()) > 0.01


def test_a_cascade_tells_its_progress_over_all_stages(batch):
    told = []
    run_cascade(
        [stage("a", 8, 16, steps=2), stage("b", 16, 32, steps=3)], batch.low[:1], [1], lambda *x: told.append(x)
    )
    assert told == [(1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]


def test_stages_that_do_not_follow_one_another_are_refused():
    with pytest.raises(ConfigError, match="stage a ends at 16 pixels, but b starts at 8"):
        check_chain([("a", model()), ("b", model())])


def test_regression_needs_no_schedule(batch):
    assert upscale(stage("r", 8, 16, "regression"), batch.low, [0] * 8).shape == batch.high.shape


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"high_size": 8}, "high_size: 8 is not larger than low_size 8"),
        ({"high_size": 12}, "unet.image_size: 16 is more than high_size 12"),
        ({"unet": UNetConfig(image_size=16, channel_multipliers=(1,), conditional=False)}, "unet.conditional"),
    ],
)
def test_models_whose_sizes_do_not_fit_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        ModelConfig(**{"low_size": 8, "high_size": 16, "unet": unet_tiny(16), **changes})
