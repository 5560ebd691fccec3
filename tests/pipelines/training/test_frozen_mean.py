"""A stage that starts from its run's regression: trained after it, on weights that stay, and complete without it."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from pipelines.ingest.split_reader import load_split
from pipelines.photo_model import load_model
from pipelines.registry.model_folder import export_model
from pipelines.registry.registry import Registry
from pipelines.runs.residual_scales import measure
from pipelines.runs.run_folder import Run, create_run, data_fingerprints, open_run
from pipelines.settings.export import ExportConfig
from pipelines.settings.presets import regression_of, small_stage
from pipelines.settings.train import RunConfig
from pipelines.training.checkpoints import steps_done
from pipelines.training.mean_scale import fix_scale, remark_on
from pipelines.training.parallel_stages import train_run
from sr3core.checkpoint import sampling_weights
from sr3core.config import override
from sr3core.errors import CheckpointError, ConfigError
from sr3core.images.pixels import to_float
from sr3core.images.resize import upsample_bicubic
from sr3core.regression import regress
from tests.preparing import prepared

STAGE = override(
    small_stage(8, 32, base_channels=8, num_steps=2, num_workers=0), model__objective__residual="regression"
)
BASELINE = override(regression_of(STAGE, learning_rate=1e-3), num_steps=3)


@pytest.fixture(scope="module")
def data(photos: Path, tmp_path_factory: pytest.TempPathFactory, ray_session: str) -> str:
    return prepared(photos, tmp_path_factory.mktemp("mean"), 40, "8-32", samples_per_shard=8)


def make_run(place: Path, data: str, baseline=BASELINE) -> Run:
    config = RunConfig(name="r", stages=(STAGE, baseline))
    return create_run(place, config, data, data_fingerprints(data, config), fresh=False)


@pytest.fixture(scope="module")
def trained(data: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = make_run(tmp_path_factory.mktemp("trained") / "run", data)
    assert [result.error for result in train_run(run)] == [None, None]
    return run.path


def mean_of(run: Run) -> dict[str, np.ndarray]:
    mean = run.stage("8-32").mean
    assert mean is not None
    return {name: value.numpy() for name, value in load_file(sampling_weights(mean.newest())).items()}


def baseline_of(run: Run) -> dict[str, np.ndarray]:
    weights = run.stage("8-32-regression").weights
    return {name: value.numpy() for name, value in load_file(sampling_weights(weights.newest())).items()}


def equal(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> bool:
    return ours.keys() == theirs.keys() and all(np.array_equal(ours[name], theirs[name]) for name in ours)


def test_the_stage_is_trained_on_what_the_trained_regression_leaves(trained: Path) -> None:
    run = open_run(trained)
    assert [steps_done(stage) for stage in run.stages] == [2, 3]
    mean = run.stage("8-32").mean
    assert mean is not None
    assert mean.newest().step == 3, "it waited for the regression's last step"
    assert equal(mean_of(run), baseline_of(run))


def test_training_the_regression_further_does_not_change_what_the_stage_starts_from(
    trained: Path, data: str, tmp_path: Path
) -> None:
    shutil.copytree(trained, tmp_path / "run")
    run = make_run(tmp_path / "run", data, override(BASELINE, num_steps=6))
    before = mean_of(run)
    assert [result.error for result in train_run(run)] == [None, None]
    assert steps_done(run.stage("8-32-regression")) == 6
    assert equal(mean_of(run), before)


def test_a_model_is_complete_without_the_regression_beside_it(trained: Path, tmp_path: Path) -> None:
    run = open_run(trained)
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    expected = load_model(str(trained), schedule="2").upscale(pixels)
    export_model(run, str(tmp_path / "model"), ExportConfig(weights="float32"))
    assert (tmp_path / "model" / "8-32" / "mean" / "model.safetensors").is_file()
    np.testing.assert_array_equal(load_model(str(tmp_path / "model"), schedule="2").upscale(pixels), expected)
    version = Registry(str(tmp_path / "models")).publish(run, "one", {"values": {}}, {})
    np.testing.assert_array_equal(load_model(version.uri, schedule="2").upscale(pixels), expected)
    shutil.rmtree(tmp_path / "model" / "8-32" / "mean")
    with pytest.raises(CheckpointError, match=r"mean.* holds no checkpoint"):
        load_model(str(tmp_path / "model"), schedule="2")


def test_where_the_regression_fails_the_stage_says_so(data: str, tmp_path: Path) -> None:
    failing = override(BASELINE, optimizer__spike_factor=1.0000001, optimizer__learning_rate=1.0)
    first, second = train_run(make_run(tmp_path / "run", data, failing))
    assert second.error is not None
    assert first.error == "8-32 starts from 8-32-regression, whose training failed"
    assert first.step == 0


def test_a_stage_cannot_be_trained_alone_before_the_regression(data: str, tmp_path: Path) -> None:
    (result,) = train_run(make_run(tmp_path / "run", data), ["8-32"])
    assert result.error is not None
    assert "8-32-regression/checkpoints holds no checkpoint: train the stage first" in result.error


def test_a_run_needs_the_regression(data: str) -> None:
    other = dataclasses.replace(BASELINE, name="again")
    for stages, count in (((STAGE,), 0), ((STAGE, BASELINE, other), 2)):
        with pytest.raises(ConfigError, match=f"needs one regression baseline of 8-32 in the run; there are {count}"):
            data_fingerprints(data, RunConfig(name="r", stages=stages))


def test_the_regression_has_the_stages_network(data: str) -> None:
    crops = override(BASELINE, model__unet__image_size=16)
    with pytest.raises(
        ConfigError, match=r"8-32-regression, whose network is another one \(model.unet.image_size: 16 -> "
    ):
        data_fingerprints(data, RunConfig(name="r", stages=(STAGE, crops)))
    data_fingerprints(data, RunConfig(name="r", stages=(STAGE, override(BASELINE, model__unet__dropout=0.1))))


def test_the_scale_is_that_of_what_the_regression_leaves(trained: Path, data: str) -> None:
    stage = open_run(trained).stage("8-32")
    network = open_run(trained).stage("8-32-regression").weights.load()
    images = load_split(data, "8-32", "train")
    with torch.no_grad():
        made = regress(network, upsample_bicubic(to_float(images.low), 32), 3).clamp(-1, 1)
    expected = (to_float(images.high) - made).double().numpy().std(axis=(0, 2, 3))
    assert stage.model.objective.residual_scale == pytest.approx(expected, rel=1e-3)
    assert stage.model.objective.residual_scale != pytest.approx(measure(data, "8-32"), rel=1e-3), "not of bicubic"
    config = stage.weights.newest().state["provenance"]["config"]
    assert config["model"]["objective"]["residual_scale"] == list(stage.model.objective.residual_scale)


def test_a_resumed_run_keeps_the_scale_that_it_was_trained_with(trained: Path, data: str, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "run")
    file = tmp_path / "run" / "config.json"
    content = json.loads(file.read_text())
    content["config"]["stages"][0]["model"]["objective"]["residual_scale"] = [0.3, 0.2, 0.1]  # as of another regression
    file.write_text(json.dumps(content))
    run = make_run(tmp_path / "run", data)
    assert run.stage("8-32").model.objective.residual_scale == (0.3, 0.2, 0.1)
    assert fix_scale(run.stage("8-32")) == run.stage("8-32")


def test_it_is_said_if_the_regression_knows_its_training_samples_by_heart() -> None:
    assert remark_on((0.1, 0.1), (0.105, 0.09)) is None
    said = remark_on((0.1, 0.1), (0.1, 0.15))
    assert said is not None
    assert "1.50 times as much of held-out samples" in said
