"""Training that is killed, interrupted, resumed or damaged: it ends with bit-identical weights."""

import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import ray
import torch

from cluster.exits import INTERRUPTED, TERMINATED
from pipelines.runs.run_folder import create_run, open_run
from pipelines.settings.train import RunConfig
from pipelines.training.checkpoints import resume
from pipelines.training.parallel_stages import steps_done, train_run
from pipelines.training.worker_group import Team
from sr3core.checkpoint import list_checkpoints
from sr3core.config import override, to_dict
from sr3core.errors import CheckpointError, ConfigError
from sr3core.training import create_state
from tests.faults.fault_runs import (
    NUM_STEPS,
    assert_identical,
    assert_same_losses,
    fault_config,
    remove_orphans,
    start,
    start_held,
    training_lines,
)
from tests.faults.gate import HELD_AT
from tests.processes import kill, session_name, wait_for, workers_of


def assert_resumes(folder: Path, data: str, reference, saved: range = range(HELD_AT, HELD_AT + 1)) -> None:
    """The same run resumes at the step that was saved, and ends like the reference."""
    assert steps_done(open_run(folder / "run").stages[0]) in saved
    again = start(folder / "run", data, placement__num_workers=0)  # the placement is nothing that results depend on
    assert [result.error for result in train_run(again)] == [None]
    assert_identical(again, reference)


def test_a_worker_and_a_controller_that_are_killed_are_replaced_and_nothing_is_lost(
    data, uninterrupted, tmp_path, ray_session
):
    """The worker at the first step at which it waits; at the second one, the process that controls its successor."""
    session, victims = session_name(), {HELD_AT: "ray::RayTrainWorker", 2 * HELD_AT: "ray::TrainController"}
    others = {process.pid for victim in victims.values() for process in workers_of(session, victim)}
    training = start_held(tmp_path, [data], ray_session, tuple(victims))
    for step, victim in victims.items():
        training.wait_until_held(step)
        assert steps_done(open_run(tmp_path / "run").stages[0]) == step
        (process,) = (process for process in workers_of(session, victim) if process.pid not in others)
        kill(process)
    done = training.end()
    assert done.returncode == 0, done.stdout + done.stderr
    remove_orphans()
    run = open_run(tmp_path / "run")
    assert_identical(run, uninterrupted)
    steps = [line["step"] for line in training_lines(run)]
    assert steps == sorted(set(steps)), "no step is logged twice"


def test_a_machine_that_goes_down_loses_nothing_but_the_steps_since_its_checkpoint(data, uninterrupted, tmp_path):
    training = start_held(tmp_path, [data], "local")
    os.killpg(training.process.pid, signal.SIGKILL)  # the driver and the Ray that it started
    training.end()
    assert_resumes(tmp_path, data, uninterrupted)


@pytest.mark.parametrize(
    ("stop", "status", "num_workers"), [(signal.SIGINT, INTERRUPTED, 1), (signal.SIGTERM, TERMINATED, 0)]
)
def test_a_command_that_is_stopped_ends_its_workers_and_resumes(
    data, uninterrupted, tmp_path, ray_session, stop, status, num_workers
):
    """Ctrl-C while a worker trains on a cluster that keeps running, and the signal that stops a job, which trains."""
    session = session_name()
    training = start_held(tmp_path, [data], ray_session, placement__num_workers=num_workers)
    assert len(workers_of(session, "ray::RayTrainWorker")) >= num_workers
    training.process.send_signal(stop)
    done = training.end()
    assert done.returncode == status, done.stderr
    assert done.stderr.rstrip().endswith("run the same command again to resume")
    assert "Traceback" not in done.stderr
    assert "is saved; training resumes there" in done.stdout
    wait_for(lambda: not workers_of(session, "ray::RayTrainWorker"))
    remove_orphans()
    assert_resumes(tmp_path, data, uninterrupted, saved=range(HELD_AT + 1, NUM_STEPS))


def test_a_damaged_newest_checkpoint_falls_back_loudly(data, uninterrupted, tmp_path, caplog):
    run = start(tmp_path / "run", data, placement__num_workers=0, num_steps=30)
    train_run(run)
    (stage,) = run.stages
    newest = stage.weights.newest().path / "optimizer.pt"
    newest.write_bytes(newest.read_bytes()[:-100])
    wanted = fault_config(placement__num_workers=0)
    config_file = run.path / "config.json"
    content = json.loads(config_file.read_text())
    config_file.write_text(json.dumps({**content, "config": to_dict(wanted)}))  # continue to 60 steps
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
    with pytest.raises(CheckpointError, match=r"none of the 2 checkpoints is intact; .* --fresh"):
        resume(stage, state, Team(0, 1, torch.device("cpu")))
    assert [info.step for info in list_checkpoints(stage.checkpoints)] == [10, 20]


def test_two_workers_follow_the_same_losses_as_one(uninterrupted, on_two_workers):
    assert_same_losses(on_two_workers, uninterrupted)


def test_four_workers_follow_the_same_losses_as_one(data, uninterrupted, tmp_path):
    run = start(tmp_path / "run", data, placement__num_workers=4, placement__cpus_per_worker=0.25)
    assert [result.error for result in train_run(run)] == [None]
    assert_same_losses(run, uninterrupted)


def test_a_finished_run_that_is_given_more_steps_ends_as_if_it_had_had_them_at_once(data, uninterrupted, tmp_path):
    for num_steps in (25, NUM_STEPS):
        run = start(tmp_path / "run", data, num_steps=num_steps, placement__num_workers=0)
        assert [(result.error, result.step) for result in train_run(run)] == [(None, num_steps)]
    assert_identical(run, uninterrupted)


def test_a_stage_that_fails_does_not_take_the_other_down(data, tmp_path):
    good = override(fault_config().stages[0], num_steps=10, placement__num_workers=0)
    bad = override(good, name="bad", model__low_size=4, placement__max_failures=0)  # 4-16 was not prepared
    wanted = RunConfig(name="mixed", stages=(good, bad))
    run = create_run(tmp_path / "run", wanted, data, {"8-16": "x"}, fresh=False)
    results = {result.stage: result for result in train_run(run)}
    assert results["8-16"].error is None
    assert results["8-16"].step == 10
    assert "4-16 holds no manifest" in (results["bad"].error or "")


def test_more_than_the_cluster_has_is_refused_at_once(data, tmp_path):
    run = start(tmp_path / "run", data, placement__cpus_per_worker=64.0)
    with pytest.raises(ConfigError, match=r"asks for 64 CPU \(the cluster has 2\)"):
        train_run(run)
    run = start(tmp_path / "other", data, placement__resources={"trainer": 1.0})
    with pytest.raises(ConfigError, match=r"asks for 1 trainer \(the cluster has 0\)"):
        train_run(run)


def test_a_stage_that_waits_for_others_says_what_it_waits_for(ray_session, data, tmp_path, capsys):
    """Another job holds a CPU that the stage needs: the stage waits for it, however long it takes, and then starts."""
    from ray.util.placement_group import placement_group, remove_placement_group

    run = start(tmp_path / "run", data, num_steps=10, placement__cpus_per_worker=2.0, placement__wait_seconds=0.0)
    other = placement_group([{"CPU": 1}])
    ray.get(other.ready())
    output = ""

    def waits() -> bool:
        nonlocal output
        output += capsys.readouterr().err
        return "8-16: waits for resources that others use: it needs 2 CPU (1 are free)" in output

    with ThreadPoolExecutor(1) as pool:
        training = pool.submit(train_run, run)
        try:
            wait_for(waits)
        finally:
            remove_placement_group(other)
        assert [result.error for result in training.result()] == [None]
