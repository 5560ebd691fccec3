"""A Ray that does not come up in time."""

import signal

import psutil

from tests.commands import start_sr3
from tests.processes import kill, wait_for


def test_a_node_that_hangs_while_it_starts_is_told_in_a_line(tmp_path, photos):
    options = ["--source", str(photos), "--out", str(tmp_path / "data"), "--stages", "8-16"]
    command = start_sr3("prepare", *options)

    def raylet() -> psutil.Process | None:
        children = psutil.Process(command.pid).children(recursive=True)
        return next((child for child in children if child.name() == "raylet"), None)

    stopped = wait_for(raylet, lambda: command.poll() is None)
    assert stopped is not None
    stopped.send_signal(signal.SIGSTOP)
    try:
        _, errors = command.communicate()
    finally:
        kill(stopped)
    assert command.returncode == 1
    assert errors.splitlines()[-1].startswith("sr3 prepare: Ray did not start on this machine within its 30 seconds")
    assert "Traceback" not in errors
    assert not (tmp_path / "data" / "8-16").exists()
