"""Table 5's ablations: arms that differ in one thing see the same noise, and differences are paired."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from cluster.cli import main
from pipelines.evaluation.ablation import arms_of, compare_arms, tabulate_ablation, verdict
from pipelines.report.html_report import write_report
from pipelines.runs.run_folder import create_run, data_fingerprints, open_run
from pipelines.settings.evaluate import EvaluateConfig, MeasureConfig
from pipelines.settings.presets import small_stage, table_5
from sr3core.checkpoint import save_checkpoint, take_snapshot
from sr3core.config import override
from sr3core.errors import ConfigError
from sr3core.metrics.psnr import psnr
from sr3core.randomness import keyed_generator
from sr3core.training import create_state
from tests.preparing import prepared
from tests.reporting import Page

CHANGED = "8-16-l2"


@pytest.fixture(scope="module")
def ablation(tmp_path_factory, photos, ray_session):
    """A run of three arms with the same random weights, except for the arm CHANGED, which has different ones."""
    folder = tmp_path_factory.mktemp("ablation")
    data = prepared(photos, folder, 60, "8-16", validation_fraction=0.2, test_fraction=0.2)
    stage = override(small_stage(8, 16, base_channels=8, num_steps=1, num_workers=1), num_lanes=1)
    config = table_5(stage)
    run = create_run(folder / "run", config, data, data_fingerprints(data, config), fresh=False)
    for each in run.stages:
        state = create_state(each.config.model, each.config.optimizer, seed=0)
        generator = keyed_generator(int(each.name == CHANGED), "weights")
        with torch.no_grad():  # the last layers start at zero
            for parameter in state.ema.parameters():
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
        save_checkpoint(each.checkpoints, take_snapshot(state), {})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipelines.evaluation.networks.find_inception", lambda: None)
        result = compare_arms(str(run.path), EvaluateConfig(schedule="3", limit=10), MeasureConfig())
    return open_run(run.path), result


def test_the_arms_of_table_5_are_one_change_each_and_seeds_are_told_apart():
    config = table_5(small_stage(16, 64, base_channels=16, num_steps=10, num_workers=1), num_seeds=2)
    assert len(config.stages) == 6
    best, no_blur, l2, again, *_ = config.stages
    assert (best.augmentation.blur_probability, best.model.objective.norm) == (0.5, 1)
    assert (no_blur.augmentation.blur_probability, no_blur.model.objective.norm) == (0.0, 1)
    assert (l2.augmentation.blur_probability, l2.model.objective.norm) == (0.5, 2)
    assert override(again, name=best.name, seed=best.seed) == best
    assert again.seed != best.seed


def test_arms_are_grouped_by_what_they_train(tmp_path):
    config = table_5(small_stage(16, 64, base_channels=16, num_steps=10, num_workers=1), num_seeds=2)
    first, *others = arms_of(create_run(tmp_path / "run", config, "data", {}, fresh=False))
    assert (first.seeds, first.changes) == ((0, 1), ())
    assert [arm.changes for arm in others] == [
        ("augmentation.blur_probability: 0.5 -> 0.0",),
        ("model.objective.norm: 1 -> 2",),
    ]
    assert others[0].stages == ("16-64-no-blur", "16-64-no-blur-seed-1")


def test_a_cascade_and_seeds_alone_are_no_ablation(cascade_run, tmp_path):
    with pytest.raises(ConfigError, match="is not an ablation: it must have several SR3 stages"):
        arms_of(open_run(cascade_run))
    config = table_5(small_stage(16, 64, base_channels=16, num_steps=10, num_workers=1), num_seeds=2)
    config = override(config, stages=(config.stages[0], config.stages[3]))
    with pytest.raises(ConfigError, match="differ only in their seeds"):
        arms_of(create_run(tmp_path / "run", config, "data", {}, fresh=False))


def test_equal_weights_make_equal_images_whatever_the_arm_is_called(ablation):
    _, result = ablation
    equal = result["arms"][1]
    assert equal["name"] == "8-16-no-blur"
    for gap in equal["differences"].values():
        assert (gap["mean"], gap["low"], gap["high"]) == (0, 0, 0)


def test_differences_are_those_of_the_same_images(ablation):
    run, result = ablation
    keys = json.loads((run.path / "evaluation.json").read_text())["keys"]

    def read(method: str) -> np.ndarray:
        return np.stack([np.asarray(Image.open(run.path / "samples" / method / f"{key}.png")) for key in keys])

    values = {name: psnr(read(name), read("reference")) for name in (CHANGED, "8-16-blur-l1")}
    changed = next(arm for arm in result["arms"] if arm["name"] == CHANGED)
    gap = values[CHANGED] - values["8-16-blur-l1"]
    found = changed["differences"]["psnr"]
    assert found["mean"] == pytest.approx(gap.mean(), rel=1e-9)
    assert found["standard_error"] == pytest.approx(gap.std(ddof=1) / np.sqrt(len(gap)), rel=1e-9)
    assert found["low"] <= found["mean"] <= found["high"]
    first = result["arms"][0]["numbers"]
    distances = changed["numbers"]["distance"]["mean"] - first["distance"]["mean"]
    assert changed["differences"]["distance"]["mean"] == pytest.approx(distances, rel=1e-9)
    assert "8-16-l2: model.objective.norm: 1 -> 2" in tabulate_ablation(result)


def test_a_difference_counts_where_images_and_seeds_agree():
    sure, unsure = {"mean": 2.0, "low": 1.0, "high": 3.0}, {"mean": 2.0, "low": -1.0, "high": 5.0}
    assert verdict("psnr", sure, [22, 23], [20, 21]) == "better"
    assert verdict("distance", sure, [22, 23], [20, 21]) == "worse"
    assert verdict("psnr", unsure, [22, 23], [20, 21]) == "undecided"
    assert verdict("psnr", {"mean": 2.0}, [22, 23], [20, 21]) == "undecided"
    assert verdict("psnr", sure, [24, 20], [19, 21]) == "undecided: the seeds disagree"
    assert verdict("consistency", sure, [3], [1]) == "worse, in one training"


def test_the_report_shows_table_5_and_what_each_change_costs(ablation):
    run, _ = ablation
    page = Page(write_report(str(run.path)).read_text())
    assert page.open == []
    text = page.text["paper"]
    assert "The effect of each change" in text
    assert "undecided" in text  # equal weights
    assert "our distance uses another network" in text  # Table 5 is FID, which seeded features are not
    assert "model.objective.norm: 1 -> 2" in text
    assert "8-16-l2" in page.text["samples"]


def test_only_one_sr3_stage_is_ablated(capsys):
    assert main(["ablate", "demo", "--data", "x", "--out", "y"]) == 2
    assert "demo is not a single SR3 stage; choose a preset such as imagenet-64-256" in capsys.readouterr().err
    assert main(["ablate", "small-16-64", "--data", "x", "--out", "y", "--num-seeds", "0"]) == 2
    assert "num_seeds: 0 is not positive" in capsys.readouterr().err
    assert main(["ablate", "imagenet-64-256", "--data", "x", "--out", "y", "--print-config", "--seed", "7"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert [stage["name"] for stage in printed["stages"]] == ["64-256-blur-l1", "64-256-no-blur", "64-256-l2"]
    assert {stage["seed"] for stage in printed["stages"]} == {7}
