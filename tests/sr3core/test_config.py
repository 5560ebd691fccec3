"""The configuration codec."""

import pytest

from sr3core.config import did_you_mean, differences, fingerprint, from_dict, override, to_dict
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


@pytest.mark.parametrize(
    ("name", "expected"),
    [("demo", "2d33807b760bf057"), ("faces-16-128", "c2545e874a9010e4"), ("table-2", "3bccc36facd36683")],
)
def test_fields_that_were_added_later_leave_earlier_fingerprints_as_they_were(name, expected):
    from pipelines.settings.presets import preset

    run = preset(name)
    assert fingerprint(run) == expected
    stage = run.stages[0]
    assert fingerprint(stage) != fingerprint(override(stage, model__unet__num_heads=2))


def test_differences_name_the_leaves():
    assert differences({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}, "d": 4}) == ["a.c: 2 -> 3", "d: None -> 4"]


def test_suggestions():
    assert did_you_mean("prepair", ["prepare", "train"]) == "did you mean 'prepare'?"
    assert did_you_mean("xyz", ["prepare", "train"]) == "known are: prepare, train"
