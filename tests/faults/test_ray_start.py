"""A Ray that does not come up in time, and a command that is stopped meanwhile."""

import signal
import subprocess
from pathlib import Path

import psutil

from cluster.exits import TERMINATED
from cluster.session import NUM_STARTS
from tests.commands import start_sr3
from tests.processes import kill, wait_for


def start_prepare(photos: Path, out: Path) -> "subprocess.Popen[str]":
    """`sr3 prepare` with a Ray of its own."""
    return start_sr3("prepare", "--source", str(photos), "--out", str(out), "--stages", "8-16")


def raylet_of(command: "subprocess.Popen[str]", *before: psutil.Process) -> psutil.Process:
    """Its raylet, as soon as there is one besides those before."""

    def raylet() -> psutil.Process | None:
        children = psutil.Process(command.pid).children(recursive=True)
        return next((child for child in children if child.name() == "raylet" and child not in before), None)

    found = wait_for(raylet, lambda: command.poll() is None)
    assert found is not None
    return found


def test_a_node_that_hangs_while_it_starts_is_started_again(tmp_path, photos):
    command = start_prepare(photos, tmp_path / "data")
    stopped = raylet_of(command)
    stopped.send_signal(signal.SIGSTOP)
    try:
        output, errors = command.communicate()
    finally:
        kill(stopped)
    assert command.returncode == 0, errors
    assert "starting it again" in output
    assert (tmp_path / "data" / "8-16").exists()


def test_a_node_that_hangs_each_time_is_told_in_a_line(tmp_path, photos):
    command = start_prepare(photos, tmp_path / "data")
    stopped = []
    try:
        for _ in range(NUM_STARTS):
            stopped.append(raylet_of(command, *stopped))
            stopped[-1].send_signal(signal.SIGSTOP)
        _, errors = command.communicate()
    finally:
        for each in stopped:
            kill(each)
    assert command.returncode == 1
    last = errors.splitlines()[-1]
    assert last.startswith("sr3 prepare: Ray did not start on this machine within its 30 seconds, 2 times")
    assert "Traceback" not in errors
    assert not (tmp_path / "data" / "8-16").exists()


def test_a_command_that_is_stopped_while_ray_starts_ends_it(tmp_path, photos):
    """Ray's own handlers are in force then; they would end the command with 1 or 15, or abort it."""
    command = start_prepare(photos, tmp_path / "data")
    raylet = raylet_of(command)
    command.terminate()
    _, errors = command.communicate()
    assert command.returncode == TERMINATED, errors
    assert errors.rstrip().endswith(
        "stopped by SIGTERM; finished shards are kept; run the same command again to resume"
    )
    assert "Traceback" not in errors
    wait_for(lambda: not raylet.is_running() or raylet.status() == psutil.STATUS_ZOMBIE)
