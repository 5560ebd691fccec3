"""The configuration codec."""

import math
from dataclasses import dataclass, field

import pytest

from sr3core.config import ADDED, did_you_mean, differences, fingerprint, fingerprint_of, from_dict, override, to_dict
from sr3core.errors import ConfigError
from sr3core.hyperparameters import ModelConfig, OptimizerConfig
from sr3core.networks.architectures import unet_tiny

MODEL = ModelConfig(low_size=8, high_size=16, unet=unet_tiny(16))


def test_a_config_comes_back_from_its_json():
    assert from_dict(ModelConfig, to_dict(MODEL)) == MODEL


def test_every_mistake_is_told_at_once_with_a_suggestion():
    data = to_dict(MODEL)
    data["unet"]["base_chanels"] = data["unet"].pop("base_channels")
    data["objective"]["norm"] = 3
    data["low_size"] = "eight"
    with pytest.raises(ConfigError) as caught:
        from_dict(ModelConfig, data)
    message = str(caught.value)
    assert "unknown key 'unet.base_chanels', did you mean 'base_channels'?" in message
    assert "objective.norm" in message
    assert "low_size" in message
    assert "eight" in message


def test_values_out_of_range_and_of_a_near_type_are_refused():
    with pytest.raises(ConfigError, match=r"learning_rate: -1\.0 is not positive"):
        from_dict(OptimizerConfig, {"learning_rate": -1.0})
    with pytest.raises(ConfigError, match="warmup_steps"):
        from_dict(OptimizerConfig, {"warmup_steps": "10"})


def test_numbers_that_are_not_finite_are_refused_by_name():
    data = {"learning_rate": math.inf, "betas": [0.9, math.nan]}
    with pytest.raises(ConfigError, match=r"learning_rate: inf is not a finite number; betas\.1: nan is not a finite"):
        from_dict(OptimizerConfig, data)


def test_override_reaches_inside_and_suggests():
    changed = override(MODEL, unet__dropout=0.1, objective__norm=2)
    assert (changed.unet.dropout, changed.objective.norm, changed.low_size) == (0.1, 2, 8)
    with pytest.raises(ConfigError, match="did you mean 'dropout'"):
        override(MODEL, unet__droput=0.1)


def test_the_fingerprint_follows_the_science_and_not_the_place():
    from pipelines.settings.presets import preset

    run = preset("demo")
    stage = run.stages[0]
    assert fingerprint(stage) == fingerprint(override(stage, placement__num_workers=4, log_every=1))
    assert fingerprint(stage) != fingerprint(override(stage, optimizer__learning_rate=1e-5))
    assert fingerprint(run) == fingerprint(from_dict(type(run), to_dict(run)))


@dataclass(frozen=True, kw_only=True, slots=True)
class Inner:
    """Added to Outer later."""

    side: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Outer:
    """A config that was there before its added fields."""

    kept: int = 0
    number: int = field(default=3, metadata=ADDED)
    nested: Inner = field(default_factory=Inner, metadata=ADDED)


def test_added_fields_at_their_defaults_are_not_in_the_fingerprint_whatever_makes_the_default():
    assert fingerprint(Outer()) == fingerprint_of({"kept": 0})
    assert fingerprint(Outer(number=4)) == fingerprint_of({"kept": 0, "number": 4})
    assert fingerprint(Outer(nested=Inner(side=2))) == fingerprint_of({"kept": 0, "nested": {"side": 2}})


def test_differences_name_the_leaves():
    assert differences({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}, "d": 4}) == ["a.c: 2 -> 3", "d: None -> 4"]


def test_suggestions():
    assert did_you_mean("prepair", ["prepare", "train"]) == "did you mean 'prepare'?"
    assert did_you_mean("xyz", ["prepare", "train"]) == "known are: prepare, train"
