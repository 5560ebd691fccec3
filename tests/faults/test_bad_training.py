"""Training that meets what it should not: gradients that are not finite, a full disk, a package that is missing."""

import json
import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from safetensors.torch import load_file

from cluster.options.training import TrainOptions
from cluster.training import training_session
from pipelines.report.status import describe, status_of
from pipelines.runs.run_folder import Run, create_run, data_fingerprints
from pipelines.settings.presets import small_stage
from pipelines.settings.train import RunConfig
from pipelines.training.checkpoints import steps_done
from pipelines.training.parallel_stages import train_run
from pipelines.training.sample_grids import grid_path
from sr3core.config import override
from sr3core.errors import ConfigError
from tests.commands import ROOT, clean_environment
from tests.processes import can_mount


def start(path: Path, data: str, **changes) -> Run:
    stage = override(
        small_stage(8, 16, base_channels=8, num_steps=20, num_workers=1),
        **{"checkpoint_every": 10, "log_every": 5, "validation_every": 20, "placement__num_workers": 0, **changes},
    )
    config = RunConfig(name="bad", stages=(stage,))
    return create_run(path, config, data, data_fingerprints(data, config), fresh=False)


DIVERGES = {"optimizer__learning_rate": 1e30, "optimizer__warmup_steps": 0}
"""The first update, whose gradient is fine, makes weights with which no loss is finite."""


def test_a_run_that_diverges_stops_and_names_the_samples(data, tmp_path):
    run = start(tmp_path / "run", data, **DIVERGES)
    (result,) = train_run(run)
    assert result.step == 0, "no checkpoint of what went wrong"
    assert re.match(r"8-16: step 2 had a gradient of norm (nan|inf) and was skipped; its worst", str(result.error))
    assert "optimizer.bad_steps=skip" in str(result.error)
    (stage,) = run.stages
    incidents = [json.loads(line) for line in (stage.path / "incidents.jsonl").read_text().splitlines()]
    assert [incident["step"] for incident in incidents] == [2, 3, 4, 5], "all of the interval, looked at once"
    assert len(incidents[0]["samples"]) == 16
    assert not float(incidents[0]["samples"][0]["loss"]) < 1e20
    assert incidents[0]["samples"][0]["key"] in str(result.error)
    said = describe(status_of(run.location))
    assert f"FAILED: {result.error}" in said
    assert "4 bad steps skipped, the last at 5" in said


def test_a_run_that_skips_bad_steps_reaches_its_end_with_the_weights_before_them(data, tmp_path):
    run = start(tmp_path / "run", data, **DIVERGES, optimizer__bad_steps="skip")
    (result,) = train_run(run)
    assert (result.error, result.step) == (None, 20)
    (stage,) = run.stages
    ten, twenty = (load_file(stage.checkpoints / f"step-{step:08d}" / "model.safetensors") for step in (10, 20))
    for key, weight in ten.items():
        assert weight.isfinite().all(), key
        assert weight.equal(twenty[key]), key
    assert len((stage.path / "incidents.jsonl").read_text().splitlines()) == 19


def test_fresh_deletes_a_run_only_for_one_that_can_train(data, tmp_path):
    run = start(tmp_path / "run", data)
    assert train_run(run)[0].error is None
    (stage,) = run.stages
    options = TrainOptions(data=(data,), out=run.location, fresh=True)
    fingerprints = data_fingerprints(data, run.config)
    greedy = RunConfig(
        name="bad", stages=(override(stage.config, placement__num_workers=1, placement__cpus_per_worker=64.0),)
    )
    with (
        pytest.raises(ConfigError, match="placement asks for 64 CPU"),
        training_session(greedy, options, fingerprints),
    ):
        pass
    assert steps_done(stage) == 20
    with training_session(run.config, options, fingerprints) as again:
        assert steps_done(again.stages[0]) == 0


def test_milestones_outlive_the_newest(data, tmp_path):
    run = start(tmp_path / "run", data, checkpoint_every=2, keep_checkpoints=2, milestone_every=6)
    assert train_run(run)[0].error is None
    kept = sorted(path.name for path in run.stages[0].checkpoints.iterdir())
    assert kept == [f"step-{step:08d}" for step in (6, 12, 18, 20)]


def test_grids_and_tensorboard_are_there_after_a_run(data, tmp_path):
    run = start(tmp_path / "run", data, sample_every=10)
    assert train_run(run)[0].error is None
    (stage,) = run.stages
    for step in (10, 20):
        with Image.open(grid_path(stage.path, step)) as grid:
            assert grid.size == (6 * 16, 3 * 16), "input, sample, original of six held-out images"
    first, last = (Image.open(grid_path(stage.path, step)).tobytes() for step in (10, 20))
    row = len(first) // 3
    assert first[:row] == last[:row], "the same images"
    assert first[row : 2 * row] != last[row : 2 * row], "other weights"
    assert ("train/loss", 5) in scalars(stage.path / "tensorboard")
    assert ("validation/loss", 20) in scalars(stage.path / "tensorboard")


def scalars(folder: Path) -> set[tuple[str, int]]:
    """(name, step) of what TensorBoard's event files hold, read by their framing: length, sum, message, sum."""
    from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue] - made at run time

    found = set()
    for path in folder.iterdir():
        data = path.read_bytes()
        position = 0
        while position < len(data):
            (length,) = struct.unpack_from("<Q", data, position)
            event = Event.FromString(data[position + 12 : position + 12 + length])
            found |= {(value.tag, event.step) for value in event.summary.value}
            position += 12 + length + 4
    return found


def test_a_tracker_that_is_not_installed_is_refused_before_training(data, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)  # Python then finds no such module, though tests have it
    run = start(tmp_path / "run", data, placement__trackers=("wandb",))
    with pytest.raises(ConfigError, match=r"wandb is not installed; pip install 'sr3-on-ray\[wandb\]'"):
        train_run(run)
    assert not run.stages[0].path.exists()


DRIVER = """
# argv: run folder. Ray and everything else is elsewhere; the run folder is on a disk of its own that is too small.
import json, sys
from pipelines.runs.run_folder import open_run
from pipelines.training.worker_loop import train_stage
from sr3core.errors import StorageError
try:
    train_stage(open_run(sys.argv[1]).stages[0])
except StorageError as error:
    print("ANSWER", error)
"""


@pytest.mark.skipif(not can_mount(), reason="needs a private mount, which this system does not allow")
def test_a_disk_that_fills_up_leaves_the_checkpoint_before_and_says_so(data, tmp_path):
    run = start(tmp_path / "run", data, checkpoint_every=5, keep_checkpoints=4)
    config = (run.path / "config.json").read_bytes()
    (tmp_path / "config.json").write_bytes(config)
    probe = start(tmp_path / "probe", data, num_steps=5)
    assert train_run(probe)[0].error is None
    size = sum(path.stat().st_size for path in probe.stages[0].weights.newest().path.iterdir())
    script = (
        f"mount -t tmpfs -o size={int(2.5 * size)} tmpfs {run.path} && cp {tmp_path}/config.json {run.path} &&"
        f" {sys.executable} -c '{DRIVER}' {run.path};"
        f" find {run.path} -name 'step-*' -o -name '.writing*' | sort;"
        f" cat {run.path}/*/checkpoints/*/state.json | grep -c sha256"
    )
    done = subprocess.run(
        ["unshare", "-Urm", "sh", "-c", script],
        cwd=ROOT,
        env=clean_environment(),
        capture_output=True,
        text=True,
    )
    lines = done.stdout.splitlines()
    answer = next((line for line in lines if line.startswith("ANSWER")), done.stdout + done.stderr)
    assert "step 15 could not be saved (No space left on device); free some space, or lower keep_checkpoints" in answer
    left = [Path(line).name for line in lines if line.startswith(str(run.path))]
    assert left == ["step-00000005", "step-00000010"], "whole ones, and nothing half-written"
    assert lines[-1] == "2"
    assert steps_done(run.stages[0]) == 0, "outside the mount there is nothing"
