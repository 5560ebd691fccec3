"""The script for the minutes that a GPU is there, rehearsed on a CPU: a typing mistake must not cost them."""

import argparse
import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from pipelines.settings.presets import PRESETS
from sr3core.networks.unet import UNet
from tests.benchmarks import gpu_check
from tests.commands import ROOT


def options(out):
    return argparse.Namespace(device="cpu", tiny=True, crops=None, out=str(out), seconds=16, minutes=1)


@pytest.mark.parametrize("part", [name for name in gpu_check.PARTS if name != "train"])
def test_every_part_finds_something(part, tmp_path):
    findings = list(gpu_check.PARTS[part][0](gpu_check.Setting(options(tmp_path))))
    assert findings
    json.dumps(findings, allow_nan=False)


def test_every_preset_of_the_paper_and_of_crops_is_tried_as_it_is_trained():
    stages = gpu_check.stages_of(tiny=False)
    tried = [(model.high_size, model.unet, images) for model, images in stages.values()]
    for name, make in PRESETS.items():
        for stage in make().stages:
            model, images = gpu_check.of_preset(stage)
            assert not stage.placement.use_gpu or (model.high_size, model.unet, images) in tried, name
    assert stages["256-1024-crops"][0].crop_size == 256


def test_crops_are_tried_too(tmp_path):
    whole, crops = gpu_check.fits(gpu_check.Setting(options(tmp_path)))
    assert (whole["network"], crops["network"]) == ("8-16", "8-16-crops")
    assert crops["budget_bytes"] < whole["budget_bytes"]


def test_both_networks_that_have_a_goal_are_timed_and_what_is_beside_a_step_too(tmp_path):
    setting = gpu_check.Setting(options(tmp_path))
    timed = {found["network"] for found in gpu_check.utilisation(setting) if found.get("seconds")}
    assert timed == {setting.main, setting.second}
    (beside,) = gpu_check.beside(setting)
    assert min(beside[name] for name in ("noise", "noise_host", "copy", "floats", "decode_of_one")) > 0


def test_the_noise_and_the_splits_agree(tmp_path):
    noise, *chains = gpu_check.fidelity(gpu_check.Setting(options(tmp_path)))
    assert noise["noise_largest_difference"] == 0
    assert all(chain["largest_difference_of_splits"] < 0.01 for chain in chains)


def test_what_it_trains_is_the_preset_and_is_saved(tmp_path):
    setting = gpu_check.Setting(options(tmp_path))
    trained = [finding for finding in gpu_check.train(setting) if "training" in finding]
    assert {finding["training"] for finding in trained} == {"regression", "sr3"}
    for index, name in enumerate(("sr3", "regression")):
        with torch.device("meta"):
            expected = UNet(gpu_check.photos_model(index, setting).unet).state_dict()
        saved = load_file(tmp_path / f"{name}.safetensors")
        assert {key: value.shape for key, value in saved.items()} == {key: v.shape for key, v in expected.items()}


def test_a_part_that_is_cut_or_fails_costs_only_itself(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["gpu_check.py", "--tiny", "--device", "cpu", "--out", str(tmp_path)])
    (cut,) = map(json.loads, gpu_check.lines_of("fits", 1))
    assert (cut["part"], cut["ended"]) == ("fits", -9)
    monkeypatch.setattr(sys, "argv", ["gpu_check.py", "--device", "cuda:7", "--out", str(tmp_path)])
    (failed,) = map(json.loads, gpu_check.lines_of("beside", 120))
    assert failed["ended"] == 1
    assert failed["error"]


def test_it_needs_neither_ray_nor_pydantic():
    blocked = (
        "import sys; [sys.modules.__setitem__(name, None) for name in ('ray', 'pydantic', 'tyro', 'boto3', 'PIL')]"
    )
    code = f"{blocked}; import tests.benchmarks.gpu_check as check; print(len(check.PARTS))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True).stdout == "6\n"
