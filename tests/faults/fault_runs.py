"""The small run that all fault tests train, in this process or held in another, and the comparison of two such runs."""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from safetensors.torch import load_file

from pipelines.runs.run_folder import Run, create_run, data_fingerprints, read_metrics
from pipelines.settings.presets import small_stage
from pipelines.settings.train import RunConfig
from sr3core.config import override, to_dict
from tests.commands import ROOT, clean_environment
from tests.faults.gate import HELD_AT
from tests.processes import wait_for
from tests.shallow import SHALLOW

NUM_STEPS = 60
HEALTH = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_failure_threshold": "3",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "10",
}
"""Environment of a Ray that soon sees that a node is gone; a node that answers late, on a busy machine, is not gone."""


def fault_config(**changes: Any) -> RunConfig:
    """One stage, 8 to 16, of 60 steps, with a checkpoint every ten."""
    stage = override(
        small_stage(8, 16, base_channels=8, num_steps=NUM_STEPS, num_workers=1),
        **{"checkpoint_every": 10, "log_every": 5, "keep_checkpoints": 100, **SHALLOW, **changes},
    )
    return RunConfig(name="fault", stages=(stage,))


def start(path: Path, data: str, **changes: Any) -> Run:
    """A run folder of it, not trained yet."""
    wanted = fault_config(**changes)
    return create_run(path, wanted, data, data_fingerprints(data, wanted), fresh=False)


def assert_identical(first: Run, second: Run) -> None:
    """The newest checkpoints of two runs have the same weights, bit by bit."""
    (one,), (other,) = first.stages, second.stages
    for name in ("model.safetensors", "ema.safetensors"):
        ours, theirs = (load_file(stage.weights.newest().path / name) for stage in (one, other))
        assert ours.keys() == theirs.keys()
        for key in ours:
            assert torch.equal(ours[key], theirs[key]), f"{name}: {key}"


def training_lines(run: Run) -> list[dict[str, Any]]:
    """What the run logged of its training steps."""
    (stage,) = run.stages
    return [line for line in read_metrics(stage.metrics) if line["kind"] == "train"]


def assert_same_losses(run: Run, reference: Run) -> None:
    """One-stage runs on different numbers of workers logged the same steps and losses."""
    (stage,), (alone,) = run.stages, reference.stages
    for ours, theirs in zip(read_metrics(stage.metrics), read_metrics(alone.metrics), strict=True):
        assert ours["step"] == theirs["step"]
        # Only rounding differs; from about step 30 on, Adam amplifies it beyond any tolerance that reveals mistakes.
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5 if ours["step"] <= 20 else 3e-2)


@dataclass(frozen=True)
class HeldTraining:
    """`sr3 train` in a process of its own, whose worker waits in the middle; what it says goes into files."""

    folder: Path
    """The run is in folder/run."""
    process: "subprocess.Popen[bytes]"

    def wait_until_held(self, step: int) -> None:
        """Wait until its worker has saved a step's checkpoint and waits."""
        held = self.folder / "run" / f"held-{step}"
        wait_for(held.exists, lambda: self.process.poll() is None, lambda: f"{self.process.args}:\n{self._said()}")

    def end(self) -> "subprocess.CompletedProcess[str]":
        """Wait for its end; its status, output and errors."""
        self.process.wait()
        output, errors = ((self.folder / f"train.{kind}").read_text() for kind in ("out", "err"))
        return subprocess.CompletedProcess(self.process.args, self.process.returncode, output, errors)

    def _said(self) -> str:
        return "".join((self.folder / f"train.{kind}").read_text() for kind in ("out", "err"))


def start_held(
    folder: Path, data: list[str], address: str, steps: Sequence[int] = (HELD_AT,), **changes: Any
) -> HeldTraining:
    """`sr3 train` into folder/run in a process of its own, when its worker waits at the first of these steps."""
    (folder / "run.json").write_text(json.dumps(to_dict(fault_config(**changes))))
    arguments = ["train", "--config", str(folder / "run.json"), "--data", *data, "--out", str(folder / "run")]
    gate = [sys.executable, "-m", "tests.faults.gate", address, ",".join(map(str, steps))]
    with (folder / "train.out").open("wb") as output, (folder / "train.err").open("wb") as errors:
        process = subprocess.Popen(
            [*gate, *arguments],
            env=clean_environment(),
            cwd=ROOT,
            stdout=output,
            stderr=errors,
            start_new_session=True,
        )
    training = HeldTraining(folder, process)
    training.wait_until_held(steps[0])
    return training


def remove_orphans() -> None:
    """Free what a killed controller held. On a cluster with a dashboard Ray Train's own cleaner does it."""
    from ray.util.placement_group import PlacementGroup, placement_group_table, remove_placement_group

    for identifier, row in placement_group_table().items():
        if row["state"] != "REMOVED":
            remove_placement_group(PlacementGroup(ray.PlacementGroupID(bytes.fromhex(identifier))))
