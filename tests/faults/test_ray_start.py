"""A Ray that does not come up in time, and a command that is stopped meanwhile."""

import signal
import subprocess
from pathlib import Path

import psutil

from cluster.exits import TERMINATED
from tests.commands import start_sr3
from tests.processes import kill, wait_for


def start_prepare(photos: Path, out: Path) -> "tuple[subprocess.Popen[str], psutil.Process]":
    """`sr3 prepare` with a Ray of its own, and that Ray's raylet as soon as it is there."""
    command = start_sr3("prepare", "--source", str(photos), "--out", str(out), "--stages", "8-16")

    def raylet() -> psutil.Process | None:
        children = psutil.Process(command.pid).children(recursive=True)
        return next((child for child in children if child.name() == "raylet"), None)

    found = wait_for(raylet, lambda: command.poll() is None)
    assert found is not None
    return command, found


def test_a_node_that_hangs_while_it_starts_is_told_in_a_line(tmp_path, photos):
    command, stopped = start_prepare(photos, tmp_path / "data")
    stopped.send_signal(signal.SIGSTOP)
    try:
        _, errors = command.communicate()
    finally:
        kill(stopped)
    assert command.returncode == 1
    assert errors.splitlines()[-1].startswith("sr3 prepare: Ray did not start on this machine within its 30 seconds")
    assert "Traceback" not in errors
    assert not (tmp_path / "data" / "8-16").exists()


def test_a_command_that_is_stopped_while_ray_starts_ends_it(tmp_path, photos):
    """Ray's own handlers are in force then; they would end the command with 1 or 15, or abort it."""
    command, raylet = start_prepare(photos, tmp_path / "data")
    command.terminate()
    _, errors = command.communicate()
    assert command.returncode == TERMINATED, errors
    assert errors.rstrip().endswith(
        "stopped by SIGTERM; finished shards are kept; run the same command again to resume"
    )
    assert "Traceback" not in errors
    wait_for(lambda: not raylet.is_running() or raylet.status() == psutil.STATUS_ZOMBIE)
