"""Exported models, on a disk and on a real S3 server: what they hold, and that they upscale as the run does."""

import json
import shutil
from pathlib import Path
from typing import Literal

import pytest
import torch
from safetensors.torch import load_file, save_file

from cluster.cli import main
from pipelines.registry.model_folder import export_model
from pipelines.runs.run_data import remember_data, require_data, with_data
from pipelines.runs.run_folder import Run, open_run
from pipelines.settings.export import ExportConfig
from pipelines.storage import uris
from sr3core.checkpoint import sampling_weights
from sr3core.diffusion.schedules import default_schedule
from sr3core.errors import CheckpointError, ConfigError, DataError
from sr3core.upscaling.cascade import run_cascade


@pytest.fixture
def run(cascade_run: Path, tmp_path: Path) -> Run:
    """A run with a searched schedule and an evaluation, which may be written to."""
    shutil.copytree(cascade_run, tmp_path / "run")
    found = open_run(tmp_path / "run")
    stage = found.cascade()[0]
    schedule = default_schedule(stage.model.noise_schedule, 3)
    stage.schedules.mkdir(exist_ok=True)
    (stage.schedules / "best-3.json").write_text(schedule.to_json())
    (stage.schedules / "trial-0.json").write_text(schedule.to_json())
    evaluation = {
        "format": "sr3-evaluation",
        "format_version": 1,
        "num_images": 4,
        "split": "test",
        "methods": [
            {"name": "bicubic", "psnr": {"mean": 20.0, "low": 19.0, "high": 21.0, "n": 4}},
            {"name": "sr3", "psnr": {"mean": 22.0, "n": 4}, "kid": {"mean": 0.0123, "n": 4}},
        ],
    }
    (found.path / "evaluation.json").write_text(json.dumps(evaluation))
    return found


def test_a_model_holds_what_sampling_needs_and_no_more(run: Run, place: str) -> None:
    out = uris.join(place, "model")
    sizes = export_model(run, out, ExportConfig())
    names = [stage.name for stage in run.cascade()]
    per_stage = [f"{name}/{file}" for name in names for file in ("model.safetensors", "state.json")]
    wanted = {*per_stage, f"{names[0]}/schedules/best-3.json", "README.md", "config.json"}
    found = dict(uris.list_files(out))
    assert set(sizes) == set(found) == wanted
    for stage in run.cascade():
        full = sampling_weights(stage.weights.newest()).stat().st_size
        assert found[f"{stage.name}/model.safetensors"] < 0.6 * full, "float16 halves the weights"
    config = json.loads(uris.read_bytes(uris.join(out, "config.json")))
    assert config["data"] == "", "a path of the machine that trained it is nobody's business"
    assert config["provenance"]["data_fingerprints"] == run.data_fingerprints
    with pytest.raises(ConfigError, match=r"out: .* is not empty; choose a new folder"):
        export_model(run, out, ExportConfig())


@pytest.mark.parametrize("weights", ["float16", "float32"])
def test_a_model_upscales_as_the_run_does(run: Run, tmp_path: Path, weights: Literal["float16", "float32"]) -> None:
    export_model(run, str(tmp_path / "model"), ExportConfig(weights=weights))
    model = open_run(tmp_path / "model")
    low = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    ours, theirs = (run_cascade([stage.load("3") for stage in each.cascade()], low, [7]) for each in (model, run))
    error = (ours - theirs).abs().max().item()
    assert error == 0 if weights == "float32" else 0 < error < 0.02
    first = model.cascade()[0].schedule()
    assert first is not None
    assert first.num_steps == 3, "the searched schedule is the default"


def test_the_card_says_what_the_model_is(run: Run, tmp_path: Path) -> None:
    config = ExportConfig(
        title="Tiny", license="cc-by-4.0", credits="Twelve drawings by nobody.", limits="Good at little."
    )
    export_model(run, str(tmp_path / "model"), config)
    card = (tmp_path / "model" / "README.md").read_text()
    head, _, body = card.removeprefix("---\n").partition("---\n")
    assert "license: cc-by-4.0\n" in head
    assert "pipeline_tag: image-to-image\n" in head
    assert body.startswith("\n# Tiny\n")
    for words in ("Twelve drawings by nobody.", "Good at little.", "| bicubic | 20.00 [19.00, 21.00] | - |"):
        assert words in body
    assert "| this model | 22.00 | 12.3 |" in body
    first = run.cascade()[0]
    assert f"| {first.name} | images, 2 times larger; trained at 8 -> 16 pixels |" in body
    assert f"{first.weights.newest().step:,} steps of {first.config.batch_size} images" in body
    assert run.provenance["fingerprint"] in body


def test_a_copy_of_a_model_keeps_its_card_and_its_origin(run: Run, tmp_path: Path) -> None:
    export_model(run, str(tmp_path / "model"), ExportConfig(credits="Twelve drawings by nobody."))
    model = open_run(tmp_path / "model")
    export_model(model, str(tmp_path / "copy"), ExportConfig())
    for name in ("README.md", "config.json"):
        assert (tmp_path / "copy" / name).read_bytes() == (tmp_path / "model" / name).read_bytes()
    export_model(model, str(tmp_path / "renamed"), ExportConfig(title="Another"))
    card = (tmp_path / "renamed" / "README.md").read_text()
    assert "# Another\n" in card
    assert all(f"prepared data {stage}: `{value}`" in card for stage, value in run.data_fingerprints.items())


def test_a_damaged_model_is_refused(run: Run, tmp_path: Path) -> None:
    export_model(run, str(tmp_path / "model"), ExportConfig())
    model = open_run(tmp_path / "model")
    stage = model.cascade()[0]
    weights = stage.path / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(CheckpointError, match="is damaged: its sha256 is not the recorded one"):
        stage.weights.load()
    weights.unlink()
    with pytest.raises(CheckpointError, match="is missing"):
        stage.weights.load()


def test_weights_that_float16_cannot_hold_are_refused(run: Run, tmp_path: Path) -> None:
    stage = run.cascade()[0]
    info = stage.weights.newest()
    path = sampling_weights(info)
    tensors = load_file(path)
    name = next(iter(tensors))
    save_file({**tensors, name: torch.full_like(tensors[name], 1e6)}, path)
    from sr3core.checkpoint import sha256_of

    state = json.loads((info.path / "state.json").read_text())
    state["sha256"][path.name] = sha256_of(path)
    (info.path / "state.json").write_text(json.dumps(state))
    with pytest.raises(CheckpointError, match="float16 cannot; export it as float32"):
        export_model(run, str(tmp_path / "model"), ExportConfig())
    export_model(run, str(tmp_path / "other"), ExportConfig(weights="float32"))


def test_a_model_is_measured_on_any_data(run: Run, tmp_path: Path) -> None:
    export_model(run, str(tmp_path / "model"), ExportConfig())
    model = open_run(tmp_path / "model")
    with pytest.raises(DataError, match=r"names no data; prepare images with `--stages 8-16`, and repeat .* `--data`"):
        require_data(model, "8-16", "test")
    moved = with_data(model, str(tmp_path / "data"))
    remember_data(moved)
    assert open_run(tmp_path / "model").data == str(tmp_path / "data")


def test_what_is_no_model_is_refused(run: Run, tmp_path: Path) -> None:
    (tmp_path / "numbers.json").write_text('{"format": "other"}')
    with pytest.raises(DataError, match="is not a file of `sr3 evaluate`"):
        export_model(run, str(tmp_path / "a"), ExportConfig(evaluations=(str(tmp_path / "numbers.json"),)))
    with pytest.raises(ConfigError, match=r"builtin://nothing: no such model comes with this program"):
        open_run("builtin://nothing")


def test_the_command(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "model"
    assert main(["export", str(run.path), "--out", str(out), "--dry-run"]) == 0
    assert f"to {out}" in capsys.readouterr().out
    assert not out.exists()
    assert main(["export", str(run.path), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert f"Next: `sr3 upscale PHOTOS --run {out} --out large`" in printed
    assert main(["export", str(out), "--out", str(tmp_path / "again"), "--weights", "float32"]) == 0, "models travel on"
