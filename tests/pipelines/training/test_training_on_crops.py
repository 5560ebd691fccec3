"""A stage that trains on crops of real photos, from its data to whole upscaled images: in one process, without Ray."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pipelines.images.decoding import decode_image
from pipelines.ingest.split_reader import find_split
from pipelines.photo_model import load_model
from pipelines.registry.model_folder import export_model
from pipelines.runs.run_folder import Run, create_run, data_fingerprints, open_run, read_metrics
from pipelines.sampling.held_out import SplitUpscaler
from pipelines.sampling.held_out_images import PreparedImages, Task
from pipelines.settings.evaluate import EvaluateConfig
from pipelines.settings.export import ExportConfig
from pipelines.settings.presets import regression_of, small_stage
from pipelines.settings.train import RunConfig
from pipelines.training.frozen_mean import freeze_mean
from pipelines.training.sample_grids import write_grid
from pipelines.training.validation import Validation
from pipelines.training.worker_group import Team
from pipelines.training.worker_loop import train_as_worker
from sr3core.checkpoint import list_checkpoints, sampling_weights
from sr3core.config import override, to_dict
from sr3core.networks.unet import UNet
from sr3core.networks.weight_transfer import transfer_weights
from sr3core.training import Trainer, create_state
from tests.synthetic_shards import write_shards

ALONE = Team(0, 1, torch.device("cpu"))
SR3 = override(
    small_stage(8, 32, base_channels=8, num_steps=6, num_workers=0),
    **{"model__unet__image_size": 16, "batch_size": 16, "num_validation_images": 4, "validation_every": 6},
    **{"checkpoint_every": 3, "log_every": 3, "placement__trackers": (), "model__objective__residual": "upsampled"},
)
REGRESSION = regression_of(SR3, learning_rate=1e-3)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> str:
    files = sorted(photos.glob("*.jpg"))[:20]
    images = [decode_image(file.read_bytes()).pixels[48:80, 48:80] for file in files]
    return write_shards(tmp_path_factory.mktemp("data"), "8-32", [64], validation=4, images=images)


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Images of 32 pixels take several tiles of 16."""
    monkeypatch.setattr("sr3core.upscaling.tile_grid.SMALLEST_DEFAULT_TILE", 8)


def new_run(folder: Path, data: str, *stages) -> Run:
    config = RunConfig(name="crops", stages=stages)
    return create_run(folder, config, data, data_fingerprints(data, config), fresh=False)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, data: str) -> Run:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sr3core.upscaling.tile_grid.SMALLEST_DEFAULT_TILE", 8)
        run = new_run(tmp_path_factory.mktemp("run"), data, SR3, REGRESSION)
        for stage in run.stages:
            train_as_worker(stage, ALONE, lambda _: None)
    return run


def test_a_stage_and_its_regression_learn_from_crops_and_are_validated_on_whole_images(trained):
    for stage in trained.stages:
        validations = [line for line in read_metrics(stage.metrics) if line["kind"] == "validation"]
        assert [line["step"] for line in validations] == [0, 6]
        assert validations[-1]["loss"] < validations[0]["loss"]
        assert all(("psnr" in line) == (stage.model.kind == "regression") for line in validations)


def test_a_killed_training_resumes_to_the_same_weights(trained, data, tmp_path):
    run = new_run(tmp_path / "again", data, SR3)
    (stage,) = run.stages
    first = replace(stage, config=override(stage.config, num_steps=3))
    train_as_worker(first, ALONE, lambda _: None)
    train_as_worker(stage, ALONE, lambda _: None)
    digests = [
        list_checkpoints(each.checkpoints)[-1].state["sha256"]["model.safetensors"]
        for each in (stage, trained.stage(SR3.name))
    ]
    assert digests[0] == digests[1]


def test_the_held_out_loss_is_that_of_whole_images_whoever_computes_it(trained):
    stage = trained.stage(SR3.name)
    state = create_state(stage.model, stage.config.optimizer, seed=3)
    trainer = Trainer(stage.model, stage.config.optimizer, seed=0)
    whole = Validation(stage, trainer, ALONE)(state)
    # An untrained network says 0 wherever it is asked; the loss is then that of all values of the whole images.
    as_whole = override(stage.config, model__unet__image_size=32)
    untrained = create_state(as_whole.model, as_whole.optimizer, seed=3)
    expected = Validation(replace(stage, config=as_whole), Trainer(as_whole.model, as_whole.optimizer, 0), ALONE)
    assert whole["loss"] == pytest.approx(expected(untrained)["loss"], rel=1e-6)


def test_a_chain_may_start_from_a_regression_of_crops(trained, data, tmp_path):
    objective = {"model__objective__residual": "regression", "model__objective__residual_scale": (0.1, 0.1, 0.1)}
    run = new_run(tmp_path / "run", data, override(SR3, **objective, num_steps=2), REGRESSION)
    stage = run.stage(SR3.name)
    freeze_mean(stage, trained.stage(REGRESSION.name))
    train_as_worker(stage, ALONE, lambda _: None)
    write_grid(stage, stage.weights.load(), 2)
    first, last = (line["loss"] for line in read_metrics(stage.metrics) if line["kind"] == "validation")
    assert first != last


def test_a_grid_shows_whole_images(trained):
    stage = trained.stage(SR3.name)
    write_grid(stage, stage.weights.load(), 6)
    grid = decode_image((stage.path / "samples" / "step-00000006.png").read_bytes()).pixels
    assert grid.shape == (3 * 32, 4 * 32, 3)


def test_an_exported_stage_upscales_photos_larger_than_its_crops(trained, tmp_path, photos):
    export_model(open_run(trained.location), str(tmp_path / "model"), ExportConfig())
    assert "trained at 8 -> 32 pixels, on crops of 16" in (tmp_path / "model" / "README.md").read_text()
    model = load_model(str(tmp_path / "model"))
    photo = decode_image(sorted(photos.glob("*.jpg"))[0].read_bytes()).pixels[:24, :32]
    upscaled = model.upscale(photo)
    assert upscaled.shape == (96, 128, 3)
    nearest = photo.repeat(4, axis=0).repeat(4, axis=1)
    assert np.abs(upscaled.astype(float) - nearest).mean() < 60, "something like the photo"


def test_held_out_images_are_upscaled_whole_in_tiles_by_the_chain_and_by_its_regression(trained, data, tmp_path):
    seen: set[tuple[int, ...]] = set()

    def note(module: torch.nn.Module, inputs: tuple[torch.Tensor | None, ...]) -> None:
        if isinstance(module, UNet) and inputs[1] is not None:
            seen.add(tuple(inputs[1].shape[-2:]))

    images = PreparedImages(find_split(data, "8-32", "validation"), SR3.degradation)
    config = override(EvaluateConfig(), split="validation", schedule="2")
    upscaler = SplitUpscaler(str(trained.path), to_dict(config), str(tmp_path), "cpu")
    with torch.nn.modules.module.register_module_forward_pre_hook(note):
        upscaler.work(Task(images))
    assert seen == {(16, 16)}
    for method in ("reference", "sr3", REGRESSION.name):
        outputs = [decode_image(path.read_bytes()).pixels for path in (tmp_path / method).glob("*.png")]
        assert [output.shape for output in outputs] == [(32, 32, 3)] * 4


def test_weights_are_those_of_a_network_for_whole_images(trained):
    stage = trained.stage(SR3.name)
    whole = UNet(override(stage.model.unet, image_size=32, attention_sizes=(16,)))
    assert not transfer_weights(whole, sampling_weights(stage.weights.newest())).misfits
