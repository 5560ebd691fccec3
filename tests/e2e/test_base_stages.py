"""A cascade that starts with a class-conditional base model: prepared, trained side by side, and still upscaling."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from cluster.cli import main
from pipelines.runs.run_folder import open_run, read_metrics
from pipelines.settings.presets import small_classes, small_stage
from pipelines.settings.train import RunConfig
from pipelines.training.validation import NUM_BUCKETS, Validation
from pipelines.training.worker_group import Team
from sr3core.config import override, to_dict
from sr3core.diffusion.guidance import as_denoiser
from sr3core.diffusion.learned_variance import split_variance
from sr3core.randomness import derive_seed
from sr3core.training import Trainer, create_state, draw_noise

SYNSETS = ("n01440764", "n01443537")


def tiny_run():
    """Base 16 with two classes and a learned variance on two workers, and 16 -> 32 in this process; forty steps."""
    (classes,) = small_classes().stages
    base = override(small_stage(None, 16, base_channels=8, num_steps=40, num_workers=2), model__unet__num_classes=2)
    base = override(
        base,
        model__unet__num_heads=4,
        model__unet__learned_variance=True,
        model__objective=classes.model.objective,
        validation_every=20,
    )
    stages = (base, small_stage(16, 32, base_channels=8, num_steps=40, num_workers=0))
    return RunConfig(
        name="tiny",
        stages=tuple(override(s, num_validation_images=16, optimizer__ema_decay=0.9) for s in stages),
    )


@pytest.fixture(scope="module")
def cascade(tmp_path_factory, photos, ray_session):
    """Photos in ImageNet's folders, their shards, and the trained run."""
    folder = tmp_path_factory.mktemp("base")
    for number, path in enumerate(sorted(photos.glob("*.jpg"))[:120]):
        place = folder / "train" / SYNSETS[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number:03d}.JPEG").write_bytes(path.read_bytes())
    where = ["--source", str(folder / "train"), "--out", str(folder / "data"), "--stages", "base-16,16-32"]
    assert main(["prepare", *where, "--validation-fraction", "0.2", "--test-fraction", "0.1"]) == 0
    (folder / "tiny.json").write_text(json.dumps(to_dict(tiny_run())))
    assert main(train_arguments(folder)) == 0
    return folder


def train_arguments(folder):
    return [
        "train",
        *("--config", str(folder / "tiny.json"), "--data", str(folder / "data"), "--out", str(folder / "run")),
    ]


def test_the_base_model_is_trained_beside_the_cascade_and_learns(cascade, capsys):
    base = open_run(cascade / "run").base()
    assert base is not None
    assert base.weights.newest().step == 40
    held_out = [line for line in read_metrics(base.metrics) if line["kind"] == "validation"]
    assert held_out[-1]["loss"] < 0.9 * held_out[0]["loss"]
    assert main(["status", str(cascade / "run")]) == 0
    assert "base-16: done, step 40/40, loss" in capsys.readouterr().out


def test_the_trained_network_denoises_for_a_class_with_a_variance(cascade):
    base = open_run(cascade / "run").base()
    assert base is not None
    stage = base.load("4")
    denoise = as_denoiser(stage.model, stage.network, torch.tensor([0, 1]), guidance=1.0)
    with torch.no_grad():
        output = denoise(None, torch.randn(2, 3, 16, 16), torch.tensor([0.5, 0.5], dtype=torch.float64))
    epsilon_hat, fraction = split_variance(output, 3)
    assert epsilon_hat.shape == (2, 3, 16, 16)
    assert fraction is not None
    assert bool(output.isfinite().all())


def test_held_out_losses_by_noise_level_are_the_means_of_those_levels(cascade):
    base = open_run(cascade / "run").base()
    assert base is not None
    config = base.config
    state = create_state(config.model, config.optimizer, 0)
    trainer = Trainer(config.model, config.optimizer, config.seed)
    validation = Validation(base, trainer, Team(0, 1, torch.device("cpu")))
    found = {name: value for name, value in validation(state).items() if not name.startswith("variance_")}
    seed = derive_seed(config.seed, "validation")
    _, _, t = draw_noise(config.model.objective, trainer._gammas, (16, 3, 16, 16), seed, 0, range(16))
    counts = np.bincount((t - 1) * NUM_BUCKETS // 2000, minlength=NUM_BUCKETS)
    buckets = {f"loss_bucket_{i}": i for i in range(NUM_BUCKETS) if counts[i]}
    assert found.keys() == {"loss", *buckets}
    mean = sum(found[name] * counts[i] for name, i in buckets.items()) / 16
    assert found["loss"] == pytest.approx(mean, rel=1e-6)
    lines = [line for line in read_metrics(base.metrics) if line["kind"] == "validation"]
    assert lines[0].keys() >= found.keys()
    assert lines[0]["loss"] == pytest.approx(found["loss"], rel=1e-5)  # two workers then, one now


def test_a_run_with_a_base_model_upscales_and_evaluates_by_its_other_stages(cascade, capsys):
    Image.fromarray(np.zeros((9, 7, 3), np.uint8)).save(cascade / "photo.png")
    arguments = ["--run", str(cascade / "run"), "--out", str(cascade / "out"), "--schedule", "2"]
    assert main(["upscale", str(cascade / "photo.png"), *arguments]) == 0
    assert Image.open(cascade / "out" / "photo.png").size == (14, 18)
    assert main(["evaluate", "--run", str(cascade / "run"), "--limit", "4", "--schedule", "2"]) == 0
    assert main(["report", str(cascade / "run")]) == 0
    assert "noise → 16×16, base model by v" in (cascade / "run" / "report.html").read_text()


def test_a_model_of_fewer_classes_than_the_data_fails_before_its_workers_start_and_alone(cascade, capsys):
    arguments = train_arguments(cascade)
    arguments[-1] = str(cascade / "other")
    assert main([*arguments, "--base-16.model.unet.num-classes", "1"]) == 1
    said = capsys.readouterr().out
    assert "base-16: step 0, FAILED:" in said
    assert "holds classes up to 1, stage base-16 takes 0 to 0" in said
    assert "16-32: step 40, done" in said
    assert not (cascade / "other" / "base-16" / "ray").exists(), "no trainer was started for it"
