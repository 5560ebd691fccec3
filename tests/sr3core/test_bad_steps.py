"""Steps whose gradient is not finite, or a spike, are left out: on the device, the same on all workers."""

import dataclasses
import math

import pytest
import torch

from sr3core.batch import Batch
from sr3core.checkpoint import list_checkpoints, restore, save_checkpoint, take_snapshot
from sr3core.errors import ConfigError
from sr3core.hyperparameters import ModelConfig, OptimizerConfig
from sr3core.networks.architectures import unet_tiny
from sr3core.training import Trainer, create_state
from sr3core.update_rules import average_decay, is_spike, next_typical_norm

MODEL = ModelConfig(low_size=8, high_size=16, unet=unet_tiny(16, 8))
OPTIMIZER = OptimizerConfig(learning_rate=1e-3, warmup_steps=0, ema_decay=0.9)


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    low, high = (torch.rand(4, 3, size, size, generator=generator) * 2 - 1 for size in (8, 16))
    return Batch(low, high, (0, 1, 2, 3), ("a", "b", "c", "d"))


def poisoned(batch: Batch, factor: float) -> Batch:
    high = batch.high.clone()
    high[2] *= factor
    return dataclasses.replace(batch, high=high)


def weights(state):
    return {name: value.clone() for name, value in state.model.state_dict().items()}


def typical_norm(state):
    assert state.typical_norm is not None
    return state.typical_norm


def adam(state):
    return [
        {name: value.clone() for name, value in entry.items()}
        for entry in state.optimizer.state_dict()["state"].values()
    ]


def assert_equal(one, other):
    for key in one:
        assert torch.equal(one[key], other[key]), key


@pytest.mark.parametrize("factor", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_changes_neither_weights_nor_moments(batch, factor):
    state, trainer = create_state(MODEL, OPTIMIZER, 0), Trainer(MODEL, OPTIMIZER, 0)
    good = trainer.step(state, state.model, [batch])
    assert not good.is_bad
    before, moments = weights(state), adam(state)
    bad = trainer.step(state, state.model, [poisoned(batch, factor)])
    assert bad.is_bad
    assert state.step == 2, "the step counts: the next one has the next samples"
    assert_equal(before, weights(state))
    for old, new in zip(moments, adam(state), strict=True):
        assert_equal(old, new)
    assert [bool(loss) for loss in torch.isfinite(bad.sample_losses)] == [True, True, False, True]
    assert not trainer.step(state, state.model, [batch]).is_bad
    assert any(not torch.equal(before[key], value) for key, value in weights(state).items())


def test_a_spike_is_measured_against_the_recent_norms(batch):
    config = dataclasses.replace(OPTIMIZER, spike_factor=5.0)
    state, trainer = create_state(MODEL, config, 0), Trainer(MODEL, config, 0)
    norms = []
    for _ in range(5):
        statistics = trainer.step(state, state.model, [batch])
        assert not statistics.is_bad
        norms.append(float(statistics.gradient_norm))
    assert min(norms) * 0.99 < float(typical_norm(state)) < max(norms) * 1.01
    before, typical = weights(state), float(typical_norm(state))
    statistics = trainer.step(state, lambda *inputs: 1000 * state.model(*inputs), [batch])
    assert statistics.is_bad
    assert torch.isfinite(statistics.gradient_norm)
    assert_equal(before, weights(state))
    assert float(typical_norm(state)) == pytest.approx(typical * 5**0.02), "a spike counts as the largest that is none"
    lenient = dataclasses.replace(OPTIMIZER, spike_factor=None)
    assert not Trainer(MODEL, lenient, 0).step(state, lambda *inputs: 1000 * state.model(*inputs), [batch]).is_bad


@pytest.mark.parametrize(
    ("norm", "typical", "factor", "expected"),
    [
        (11.0, 2.0, 5.0, True),
        (10.0, 2.0, 5.0, False),
        (11.0, 2.0, None, False),
        (11.0, float("nan"), 5.0, False),
        (11.0, 0.0, None, False),
    ],
)
def test_a_spike_is_more_than_its_factor_times_the_typical_norm(norm, typical, factor, expected):
    assert bool(is_spike(torch.tensor(norm), torch.tensor(typical), factor)) == expected


def test_norms_that_have_risen_for_good_become_typical():
    """50 norms of 1, then 3.5 for ever with a factor of 3: a typical norm without spikes would refuse all of them."""
    typical, spikes = torch.tensor(float("nan")), 0
    for norm in torch.tensor([1.0] * 50 + [3.5] * 2000):
        spikes += bool(is_spike(norm, typical, 3.0))
        typical = next_typical_norm(typical, norm, 3.0)
    assert 0 < spikes < 20
    assert float(typical) == pytest.approx(3.5, rel=1e-3)


def test_the_average_forgets_the_first_weights():
    """The share of the first step's weights after n more steps, by the product of the decays."""
    shares = {n: math.prod(average_decay(0.9999, step) for step in range(1, n + 1)) for n in (100, 5000)}
    assert average_decay(0.9999, 0) == 0
    assert shares[5000] < 1e-20 < 0.6 < 0.9999**5000
    assert shares[100] < 1e-9
    assert average_decay(0.9999, 10**6) == 0.9999
    assert average_decay(0.9, 89) == pytest.approx(0.9)


def test_a_first_step_that_is_not_finite_leaves_the_measure_unknown(batch):
    config = dataclasses.replace(OPTIMIZER, spike_factor=5.0)
    state, trainer = create_state(MODEL, config, 0), Trainer(MODEL, config, 0)
    assert trainer.step(state, state.model, [poisoned(batch, float("nan"))]).is_bad
    assert not trainer.step(state, state.model, [batch]).is_bad
    assert torch.isfinite(typical_norm(state))


def test_the_measure_of_spikes_is_part_of_a_checkpoint(batch, tmp_path):
    state, trainer = create_state(MODEL, OPTIMIZER, 0), Trainer(MODEL, OPTIMIZER, 0)
    for _ in range(3):
        trainer.step(state, state.model, [batch])
    save_checkpoint(tmp_path, take_snapshot(state), {})
    other = create_state(MODEL, OPTIMIZER, 1)
    restore(list_checkpoints(tmp_path)[-1], other)
    assert torch.equal(typical_norm(other), typical_norm(state))


def test_a_snapshot_does_not_change_with_training(batch, tmp_path):
    state, trainer = create_state(MODEL, OPTIMIZER, 0), Trainer(MODEL, OPTIMIZER, 0)
    trainer.step(state, state.model, [batch])
    snapshot, before, moments = take_snapshot(state), weights(state), adam(state)
    trainer.step(state, state.model, [batch])
    save_checkpoint(tmp_path, snapshot, {})
    other = create_state(MODEL, OPTIMIZER, 1)
    restore(list_checkpoints(tmp_path)[-1], other)
    assert other.step == 1
    assert_equal(before, weights(other))
    for old, new in zip(moments, adam(other), strict=True):
        assert_equal(old, new)


def test_a_spike_factor_that_would_refuse_every_step_is_refused():
    with pytest.raises(ConfigError, match="spike_factor: 1 is not more than 1"):
        OptimizerConfig(spike_factor=1)


@pytest.mark.parametrize(("epsilon", "moves"), [(1e-8, False), (1e-12, True)])
def test_adams_epsilon_decides_whether_weights_with_tiny_gradients_move(epsilon, moves):
    optimizer = OptimizerConfig(learning_rate=1e-2, warmup_steps=0, ema_decay=0.0, epsilon=epsilon)
    state = create_state(MODEL, optimizer, seed=0)
    weight = state.model.conv_in.weight
    before = weight.detach().clone()
    weight.grad = torch.full_like(weight, 1e-10)
    state.optimizer.step()
    step = float((before - weight.detach()).mean())
    assert step == pytest.approx(1e-2 if moves else 1e-4, rel=0.02)
