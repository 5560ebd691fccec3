"""A Ray that does not come up in time."""

import os
import signal
import subprocess
import sys

import psutil

from tests.commands import ROOT
from tests.processes import kill, wait_for


def test_a_node_that_hangs_while_it_starts_is_told_in_a_line(tmp_path, photos):
    options = ["--source", str(photos), "--out", str(tmp_path / "data"), "--stages", "8-16"]
    command = subprocess.Popen(
        [sys.executable, "-m", "cluster", "prepare", *options],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    )

    def raylet() -> psutil.Process | None:
        children = psutil.Process(command.pid).children(recursive=True)
        return next((child for child in children if child.name() == "raylet"), None)

    stopped = wait_for(raylet)
    assert stopped is not None
    stopped.send_signal(signal.SIGSTOP)
    try:
        _, errors = command.communicate(timeout=120)
    finally:
        kill(stopped)
    assert command.returncode == 1
    assert errors.splitlines()[-1].startswith("sr3 prepare: Ray did not start on this machine within its 30 seconds")
    assert "Traceback" not in errors
    assert not (tmp_path / "data" / "8-16").exists()
