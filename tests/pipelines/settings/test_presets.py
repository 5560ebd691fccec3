"""The presets: what the paper's runs are, and that runs which make no cascade are refused."""

import pytest
import torch

from pipelines.runs.run_folder import create_run, open_run
from pipelines.settings.presets import PRESETS, preset, regression_of, small_stage
from pipelines.settings.train import RunConfig, TrainConfig
from sr3core.config import from_dict, override, to_dict
from sr3core.errors import ConfigError
from sr3core.hyperparameters import AugmentationConfig
from sr3core.networks.flops import forward_flops
from sr3core.networks.unet import UNet

PAPERS = [name for name in PRESETS if name not in ("demo", "fields") and not name.startswith(("small-", "photos-"))]


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_has_its_own_name_a_line_of_help_and_comes_back_from_json(name):
    run = preset(name)
    assert run.name == name
    assert from_dict(RunConfig, to_dict(run)) == run
    assert len((PRESETS[name].__doc__ or "").splitlines()) == 1


@pytest.mark.parametrize("name", PAPERS)
def test_the_papers_runs_have_the_training_of_section_4(name):
    for stage in preset(name).stages:
        assert (stage.batch_size, stage.num_steps) == (256, 1_000_000)
        assert stage.optimizer.warmup_steps == 10_000
        assert stage.optimizer.learning_rate == (1e-5 if stage.model.kind == "regression" else 1e-4)
        assert stage.model.unet.dropout == (0.2 if stage.data_stage == "16-128" else 0)
        assert stage.model.noise_schedule.num_steps == 2000


def test_the_cascades_of_section_4_3():
    faces = preset("faces-cascade")
    assert [stage.data_stage for stage in faces.stages] == ["base-64", "64-256", "256-1024"]
    assert faces.stages[1:] == preset("faces-16x").stages
    assert faces.stages[0].model.unet.num_classes is None
    images = preset("imagenet-cascade")
    assert [stage.data_stage for stage in images.stages] == ["base-64", "64-256"]
    base = images.stages[0].model
    assert base.unet.num_classes == 1000
    assert base.unet.learned_variance
    assert base.noise_schedule.family == "cosine"
    assert base.objective.bound_weight == 0.001
    assert images.stages[1].model.unet.num_classes is None  # "not conditioned on the class label"


def test_the_arms_of_table_5_differ_in_what_is_ablated_alone():
    (reference,), (no_blur,), (l2,) = (preset(n).stages for n in ("imagenet-64-256", "table-5-no-blur", "table-5-l2"))
    assert override(no_blur, augmentation__blur_probability=reference.augmentation.blur_probability) == reference
    assert override(l2, model__objective__norm=1) == reference
    assert reference.augmentation.blur_probability > 0 == no_blur.augmentation.blur_probability
    assert (reference.model.objective.norm, l2.model.objective.norm) == (1, 2)


@pytest.mark.parametrize(
    ("name", "whole", "share"), [("faces-512-crops", "faces-64-512", 4), ("faces-1024-crops", "faces-16x", 16)]
)
def test_crops_train_the_weights_of_table_a_1_at_a_fraction_of_the_work(name, whole, share):
    (crops,), (*_, paper) = preset(name).stages, preset(whole).stages
    assert (crops.name, crops.data_stage) == (paper.name, paper.data_stage)
    assert crops.model.crop_size == 256
    with torch.device("meta"):
        ours, theirs = UNet(crops.model.unet).state_dict(), UNet(paper.model.unet).state_dict()
    assert [value.shape for value in ours.values()] == [value.shape for value in theirs.values()]
    assert forward_flops(paper.model.unet) / forward_flops(crops.model.unet) == pytest.approx(share, rel=0.01)


def small(low_size, high_size):
    return small_stage(low_size, high_size, base_channels=8, num_steps=2, num_workers=1)


def test_a_run_tells_its_base_model_from_its_cascade(tmp_path):
    stages = (small(32, 64), small(16, 32), small(None, 16), regression_of(small(16, 64)))
    run = create_run(tmp_path / "run", RunConfig(name="all", stages=stages), str(tmp_path), {}, fresh=False)
    base = run.base()
    assert base is not None
    assert base.name == "base-16"
    assert [stage.name for stage in run.cascade()] == ["16-32", "32-64"]
    alone = create_run(tmp_path / "alone", RunConfig(name="a", stages=(small(16, 32),)), str(tmp_path), {}, fresh=False)
    assert alone.base() is None


def test_a_run_knows_its_data_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    create_run("run", RunConfig(name="a", stages=(small(16, 32),)), "data", {}, fresh=False)
    assert open_run("run").data == str(tmp_path / "data"), "Ray's workers have other working directories"


def test_a_base_model_of_another_size_than_the_cascade_starts_with_is_refused():
    with pytest.raises(ConfigError, match="stages: base-8 ends at 8 pixels, but 16-32 starts at 16; a cascade needs"):
        RunConfig(name="x", stages=(small(None, 8), small(32, 64), small(16, 32)))
    with pytest.raises(ConfigError, match=r"\['base-8', 'base-16'\] are base models; a run holds at most one"):
        RunConfig(name="x", stages=(small(None, 8), small(None, 16)))
    RunConfig(name="x", stages=(small(None, 8), regression_of(small(16, 32))))


def test_a_base_model_has_nothing_to_blur():
    with pytest.raises(ConfigError, match="a base model has no low-resolution image to blur"):
        TrainConfig(name="x", model=small(None, 8).model, augmentation=AugmentationConfig(blur_probability=0.5))
