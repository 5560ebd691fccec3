"""The points of a sweep: every combination, valid, different, and comparable by held-out loss."""

import pytest

from cluster.cli import main
from cluster.exits import USAGE_ERROR
from pipelines.settings.presets import preset
from sr3core.errors import ConfigError
from tune.sweeps.points import parse_axes, points_of
from tune.sweeps.settings import SweepConfig

(BASE,) = preset("small-16-64").stages


def test_values_are_numbers_words_and_lists() -> None:
    assert parse_axes(
        ["optimizer.learning-rate=1e-4, 3e-4", "optimizer.betas=[0.9,0.99],[0.9,0.999]", "precision=float32,bfloat16"]
    ) == {
        "optimizer.learning_rate": [1e-4, 3e-4],
        "optimizer.betas": [[0.9, 0.99], [0.9, 0.999]],
        "precision": ["float32", "bfloat16"],
    }
    assert parse_axes(["optimizer.gradient-clip=None,1"]) == {"optimizer.gradient_clip": [None, 1]}


def test_every_combination_is_a_training_and_nothing_else_changes() -> None:
    axes = parse_axes(["optimizer.learning-rate=1e-4,3e-4", "batch-size=8,16,32"])
    points = points_of(BASE, axes)
    assert [(p.config.optimizer.learning_rate, p.config.batch_size) for p in points] == [
        (rate, size) for rate in (1e-4, 3e-4) for size in (8, 16, 32)
    ]
    assert points[0].name == "00-learning_rate-0.0001-batch_size-8"
    assert len({point.name for point in points}) == 6
    same = {
        **{"name": BASE.name, "model": BASE.model, "seed": BASE.seed, "num_steps": BASE.num_steps},
        "placement": BASE.placement,
    }
    assert all({key: getattr(point.config, key) for key in same} == same for point in points)


@pytest.mark.parametrize(
    ("vary", "message"),
    [
        ("optimizer.learning-rate", "is not SETTING=VALUE,VALUE"),
        ("optimizer.learning-rate=1e-4", "is not SETTING=VALUE,VALUE"),
        ("batch-size=8,8", "has a value twice"),
        ("optimizer.lerning-rate=1,2", "unknown key 'optimizer.lerning_rate', did you mean 'learning_rate'"),
        ("batch-size=8,12.5", "batch_size: Input should be a valid integer"),
        ("batch-size=8,12", "batch_size: 12 is not a multiple of num_lanes 8"),
        ("optimizer.learning-rate=1e-4,-1", "learning_rate: -1.0 is not positive"),
        ("model.objective.norm=1,2", "the held-out loss measures something else"),
        ("model.noise-schedule.num-steps=1000,2000", "the held-out loss measures something else"),
        ("seed=0,1", "the held-out loss measures something else"),
        ("num-steps=10,20", "num_steps cannot be varied; set it for all trainings by --num-steps"),
        ("log-every=10,20", "are the same training: where it runs decides nothing"),
        ("batch-size.x=1,2", "batch_size"),
    ],
)
def test_what_cannot_be_compared_is_refused(vary: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        points_of(BASE, parse_axes([vary]))
    assert message in str(caught.value)
    assert str(caught.value).startswith("vary: ")


def test_a_setting_named_twice_and_none_are_refused() -> None:
    with pytest.raises(ConfigError, match="batch_size is named twice"):
        parse_axes(["batch-size=8,16", "batch_size=32,64"])
    with pytest.raises(ConfigError, match="nothing to vary"):
        parse_axes([])


def test_rungs_end_at_the_last_step() -> None:
    assert SweepConfig(num_rungs=3, rung_factor=3).rungs(2000) == (222, 666, 2000)
    assert SweepConfig(num_rungs=1).rungs(5) == (5,)
    with pytest.raises(ConfigError, match="5 steps are too few for 3 rungs of 3"):
        SweepConfig().rungs(5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("demo --vary batch-size=8,16", "only: a sweep trains one stage, and demo has 12-24, 24-48, 12-48-regression"),
        ("small-16-64 --vary batch-size=8,16 --fresh", "fresh: a sweep deletes no trainings"),
        ("small-16-64 --vary batch-size=8,16 --num-steps 4", "4 steps are too few"),
        ("small-16-64", "vary: nothing to vary"),
    ],
)
def test_a_sweep_that_cannot_be_is_refused_before_anything_is_read(
    arguments: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sweep", *arguments.split(), "--data", "x", "--out", "y"]) == USAGE_ERROR
    assert message in capsys.readouterr().err
