"""Twenty kills at random moments in one run: nothing is lost but the steps since the last checkpoint."""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from safetensors.torch import load_file

from pipelines.runs.run_folder import create_run, data_fingerprints, open_run, read_metrics
from pipelines.settings.presets import small_stage
from pipelines.settings.train import RunConfig
from pipelines.training.checkpoints import steps_done
from sr3core.checkpoint import list_checkpoints, verify
from sr3core.config import override
from tests.commands import ROOT, clean_environment
from tests.processes import wait_for
from tests.shallow import SHALLOW

NUM_KILLS = 20
NUM_STEPS = 400

ZYGOTE = """
# Imports once; then each line of input is a run that a child of its own trains, so that a start costs no imports.
import os, sys
os.environ["RAY_TRAIN_V2_ENABLED"] = "1"
import torch
import torch._dynamo  # which every process that makes an optimizer imports
torch.set_num_threads(1)
from pipelines.runs.run_folder import open_run
from pipelines.training.worker_loop import train_stage
import ray.train.torch, ray.train
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        run = open_run(line.strip())
        train_stage(run.stages[0])
        os._exit(0)
    print(child, flush=True)
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)
"""


@pytest.fixture
def zygote():
    with subprocess.Popen(
        [sys.executable, "-c", ZYGOTE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=clean_environment(),
    ) as process:
        yield process
        process.stdin.close()


def start(path: Path, data: str):
    stage = override(
        small_stage(4, 8, base_channels=8, num_steps=NUM_STEPS, num_workers=1),
        checkpoint_every=2,
        log_every=5,
        validation_every=100,
        num_lanes=4,
        batch_size=8,
        placement__num_workers=0,
        **SHALLOW,
    )
    config = RunConfig(name="kills", stages=(stage,))
    return create_run(path, config, data, data_fingerprints(data, config), fresh=False)


def attempt(zygote, run) -> int:
    """Start a training and return its process id."""
    zygote.stdin.write(f"{run.path}\n")
    zygote.stdin.flush()
    return int(zygote.stdout.readline())


@pytest.mark.slow
def test_twenty_random_kills_in_one_run(data, zygote, tmp_path):
    straight, run = start(tmp_path / "straight", data), start(tmp_path / "run", data)
    attempt(zygote, straight)
    assert int(zygote.stdout.readline()) == 0
    chance = random.Random(0)
    (stage,) = run.stages
    unfinished, reached = 0, 0
    for _ in range(NUM_KILLS):
        child = attempt(zygote, run)
        target = reached + chance.randint(1, NUM_STEPS // NUM_KILLS - 4)
        wait_for(lambda target=target: steps_done(stage) >= target, lambda child=child: psutil.pid_exists(child))
        if chance.random() < 0.5:
            wait_for(lambda: list(stage.checkpoints.glob(".writing-*/*")), lambda child=child: psutil.pid_exists(child))
        os.kill(child, signal.SIGKILL)
        assert int(zygote.stdout.readline()) == -signal.SIGKILL
        unfinished += bool(list(stage.checkpoints.glob(".writing-*")))
        for info in list_checkpoints(stage.checkpoints):
            verify(info)  # what is listed is whole
        assert steps_done(stage) >= reached, "a committed step is never lost"
        reached = steps_done(stage)
    assert unfinished > 0, "some kills were to hit the middle of a write"
    assert 0 < reached < NUM_STEPS
    attempt(zygote, run)
    assert int(zygote.stdout.readline()) == 0
    assert not list(stage.checkpoints.glob(".writing-*")), "what the killed ones left is swept away"
    (alone,) = open_run(straight.path).stages
    for name in ("model.safetensors", "ema.safetensors"):
        expected = load_file(alone.weights.newest().path / name)
        for key, weight in load_file(stage.weights.newest().path / name).items():
            assert weight.equal(expected[key]), f"{name}: {key}"
    lines = [line for line in read_metrics(stage.metrics) if line["kind"] == "train"]
    assert [line["step"] for line in lines] == list(range(5, NUM_STEPS + 1, 5))
