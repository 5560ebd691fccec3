"""A killed worker and a killed driver: training ends with bit-identical weights."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import ray
import torch
from safetensors.torch import load_file

from pipelines.runs.run_folder import Run, create_run, data_fingerprints, open_run, read_metrics
from pipelines.settings.presets import small_stage
from pipelines.settings.train import RunConfig
from pipelines.training.checkpoints import resume
from pipelines.training.parallel_stages import steps_done, train_run
from pipelines.training.worker_group import Team
from sr3core.checkpoint import list_checkpoints
from sr3core.config import override, to_dict
from sr3core.errors import CheckpointError
from sr3core.training import create_state
from tests.preparing import prepared
from tests.processes import kill, wait_for, workers_of

NUM_STEPS = 60


@pytest.fixture(scope="module")
def data(tmp_path_factory, photos, ray_session):
    return prepared(photos, tmp_path_factory.mktemp("faults"), 60, "8-16")


def config(**changes) -> RunConfig:
    stage = override(
        small_stage(8, 16, base_channels=8, num_steps=NUM_STEPS, num_workers=1),
        **{"checkpoint_every": 10, "log_every": 5, "keep_checkpoints": 100, "batch_size": 32, **changes},
    )
    return RunConfig(name="fault", stages=(stage,))


def start(path: Path, data: str, **changes) -> Run:
    wanted = config(**changes)
    return create_run(path, wanted, data, data_fingerprints(data, wanted), fresh=False)


def weights(run: Run, name: str = "model.safetensors") -> dict[str, torch.Tensor]:
    (stage,) = run.stages
    return load_file(stage.newest_checkpoint().path / name)


def assert_identical(first: Run, second: Run) -> None:
    for name in ("model.safetensors", "ema.safetensors"):
        one, other = weights(first, name), weights(second, name)
        assert one.keys() == other.keys()
        for key in one:
            assert torch.equal(one[key], other[key]), f"{name}: {key}"


def remove_orphans() -> None:
    """Free what a killed controller held. On a cluster with a dashboard Ray Train's own cleaner does it."""
    from ray.util.placement_group import PlacementGroup, placement_group_table, remove_placement_group

    for identifier, row in placement_group_table().items():
        if row["state"] != "REMOVED":
            remove_placement_group(PlacementGroup(ray.PlacementGroupID(bytes.fromhex(identifier))))


def steps_logged(run: Run) -> list[int]:
    (stage,) = run.stages
    return [line["step"] for line in read_metrics(stage.metrics) if line["kind"] == "train"]


@pytest.fixture(scope="module")
def uninterrupted(data, tmp_path_factory):
    """The same run without a fault, in this process."""
    run = start(tmp_path_factory.mktemp("straight"), data, placement__num_workers=0)
    assert [result.error for result in train_run(run)] == [None]
    return run


@pytest.mark.parametrize("victim", ["ray::RayTrainWorker", "ray::TrainController"])
def test_a_process_that_is_killed_is_replaced_and_nothing_is_lost(data, uninterrupted, tmp_path, victim):
    run = start(tmp_path / "run", data)
    (stage,) = run.stages
    session = ray._private.worker.global_worker.node.session_name
    killed = []

    def kill_once() -> bool:
        workers = workers_of(session, victim)
        if steps_done(stage) >= 20 and workers:
            killed.append(workers[0].pid)
            kill(workers[0])
            return True
        return False

    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        training = pool.submit(train_run, run)
        wait_for(kill_once)
        assert [result.error for result in training.result()] == [None]
    assert killed
    remove_orphans()
    assert steps_done(stage) == NUM_STEPS
    assert_identical(run, uninterrupted)
    assert steps_logged(run) == sorted(set(steps_logged(run))), "no step is logged twice"


def test_a_driver_that_is_killed_goes_on_with_the_same_command(data, uninterrupted, tmp_path):
    (tmp_path / "run.json").write_text(json.dumps(to_dict(config())))
    out = tmp_path / "run"
    command = [sys.executable, "-m", "cluster", "train", "--config", str(tmp_path / "run.json")]
    command += ["--data", data, "--out", str(out)]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    first = subprocess.Popen(command, env=environment, start_new_session=True, stdout=subprocess.DEVNULL)
    try:
        wait_for(lambda: (out / "config.json").is_file() and steps_done(open_run(out).stages[0]) >= 20)
    finally:
        os.killpg(first.pid, signal.SIGKILL)  # the driver and the Ray that it started: a machine that goes down
        first.wait()
    reached = steps_done(open_run(out).stages[0])
    assert 20 <= reached < NUM_STEPS
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert_identical(open_run(out), uninterrupted)


def test_an_interrupted_command_ends_at_once_and_goes_on_later(data, uninterrupted, tmp_path):
    """Ctrl-C, and what stops a job (SIGTERM), while workers are at work."""
    (tmp_path / "run.json").write_text(json.dumps(to_dict(config())))
    out = tmp_path / "run"
    command = [sys.executable, "-m", "cluster", "train", "--config", str(tmp_path / "run.json")]
    command += ["--data", data, "--out", str(out)]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    process = subprocess.Popen(command, env=environment, start_new_session=True, stderr=subprocess.PIPE, text=True)
    try:
        wait_for(lambda: (out / "config.json").is_file() and steps_done(open_run(out).stages[0]) >= 10)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=100)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 130, errors
    assert "run the same command again to resume" in errors
    assert steps_done(open_run(out).stages[0]) < NUM_STEPS


def test_a_damaged_newest_checkpoint_falls_back_loudly(data, uninterrupted, tmp_path, caplog):
    run = start(tmp_path / "run", data, placement__num_workers=0, num_steps=30)
    train_run(run)
    (stage,) = run.stages
    newest = stage.newest_checkpoint().path / "optimizer.pt"
    newest.write_bytes(newest.read_bytes()[:-100])
    wanted = config(placement__num_workers=0)
    config_file = run.path / "config.json"
    content = json.loads(config_file.read_text())
    config_file.write_text(json.dumps({**content, "config": to_dict(wanted)}))  # go on to 60 steps
    longer = open_run(run.path)
    assert [result.error for result in train_run(longer)] == [None]
    assert "optimizer.pt is damaged" in caplog.text
    assert "falling back" in caplog.text
    assert_identical(longer, uninterrupted)


def test_a_run_whose_checkpoints_are_all_damaged_is_not_started_over_unasked(data, tmp_path):
    run = start(tmp_path / "run", data, placement__num_workers=0, num_steps=20, placement__max_failures=0)
    train_run(run)
    (stage,) = run.stages
    for optimizer in stage.checkpoints.glob("*/optimizer.pt"):
        optimizer.write_bytes(optimizer.read_bytes()[:-100])
    state = create_state(stage.config.model, stage.config.optimizer, stage.config.seed)
    with pytest.raises(CheckpointError, match=r"none of the 2 checkpoints is whole; .* --fresh"):
        resume(stage, state, Team(0, 1, torch.device("cpu")))
    assert [info.step for info in list_checkpoints(stage.checkpoints)] == [10, 20]


@pytest.mark.parametrize("num_workers", [2, 4])
def test_several_workers_follow_the_same_losses_as_one(data, uninterrupted, tmp_path, num_workers):
    run = start(tmp_path / "run", data, placement__num_workers=num_workers, placement__cpus_per_worker=0.25)
    assert [result.error for result in train_run(run)] == [None]
    (stage,), (alone,) = run.stages, uninterrupted.stages
    for ours, theirs in zip(read_metrics(stage.metrics), read_metrics(alone.metrics), strict=True):
        assert ours["step"] == theirs["step"]
        # Rounding alone differs; from about step 30 on Adam makes more of it than a tolerance can tell from mistakes.
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5 if ours["step"] <= 20 else 3e-2)


def test_a_finished_run_that_is_given_more_steps_ends_as_if_it_had_had_them_at_once(data, uninterrupted, tmp_path):
    for num_steps in (25, NUM_STEPS):
        run = start(tmp_path / "run", data, num_steps=num_steps, placement__num_workers=0)
        assert [(result.error, result.step) for result in train_run(run)] == [(None, num_steps)]
    assert_identical(run, uninterrupted)


def test_a_stage_that_fails_does_not_take_the_other_down(data, tmp_path):
    good = override(config().stages[0], num_steps=10, placement__cpus_per_worker=0.5)
    bad = override(good, name="bad", model__low_size=4, placement__max_failures=0)  # 4-16 was not prepared
    wanted = RunConfig(name="mixed", stages=(good, bad))
    run = create_run(tmp_path / "run", wanted, data, {"8-16": "x"}, fresh=False)
    results = {result.stage: result for result in train_run(run)}
    assert results["8-16"].error is None
    assert results["8-16"].step == 10
    assert "4-16 holds no manifest" in (results["bad"].error or "")


def test_more_than_the_cluster_has_is_refused_at_once(data, tmp_path):
    from sr3core.errors import ConfigError

    run = start(tmp_path / "run", data, placement__cpus_per_worker=64.0)
    with pytest.raises(ConfigError, match=r"asks for 64 CPU \(the cluster has 2\)"):
        train_run(run)
    run = start(tmp_path / "other", data, placement__resources={"trainer": 1.0})
    with pytest.raises(ConfigError, match=r"asks for 1 trainer \(the cluster has 0\)"):
        train_run(run)


def test_a_stage_that_waits_for_others_says_what_it_waits_for(ray_session, data, tmp_path, capsys):
    """Another job holds a CPU that the stage needs: it is waited for, however long it takes, and let in then."""
    from ray.util.placement_group import placement_group, remove_placement_group

    run = start(tmp_path / "run", data, num_steps=10, placement__cpus_per_worker=2.0, placement__wait_seconds=0.0)
    other = placement_group([{"CPU": 1}])
    ray.get(other.ready())
    from concurrent.futures import ThreadPoolExecutor

    output = ""

    def waits() -> bool:
        nonlocal output
        output += capsys.readouterr().out
        return "8-16 waits for others to end: it needs 2 CPU (1 are free)" in output

    with ThreadPoolExecutor(1) as pool:
        training = pool.submit(train_run, run)
        try:
            wait_for(waits)
        finally:
            remove_placement_group(other)
        assert [result.error for result in training.result()] == [None]
