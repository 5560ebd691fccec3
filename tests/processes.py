"""Finding, awaiting and killing the processes that tests start, and no others."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from typing import TypeVar

import psutil

T = TypeVar("T")


def wait_for(
    condition: Callable[[], T], possible: Callable[[], object] = lambda: True, why: Callable[[], object] = lambda: ""
) -> T:
    """Poll until `condition` is true, and return its value.

    There is no deadline: a busy machine takes as long as it takes, and pytest's own timeout ends a test that hangs.

    Args:
        condition: the state that is awaited.
        possible: whether it can still come about, such as the process that brings it about being alive.
        why: what to say if it cannot, such as the output of that process.

    Raises:
        AssertionError: it can no longer come about, and has not.
    """
    while True:
        can_still_come = possible()
        if value := condition():
            return value
        assert can_still_come, f"what brings the awaited state about has ended without it. {why()}"
        time.sleep(0.05)  # between two looks; what is asserted is the state, not the time


def session_name() -> str:
    """Name of the session of the Ray that this process is connected to, for `workers_of`."""
    from ray._private.worker import global_worker

    assert global_worker.node is not None
    return global_worker.node.session_name


def workers_of(session: str, title: str) -> list[psutil.Process]:
    """Processes of a Ray session (its name is in its raylet's command line) whose title starts with `title`."""
    running = list(psutil.process_iter(["cmdline"]))  # a process that is gone or a zombie has None
    raylets = [process for process in running if session in " ".join(process.info["cmdline"] or ())]
    children = {child.pid for raylet in raylets for child in raylet.children(recursive=True)}
    return [p for p in running if p.pid in children and " ".join(p.info["cmdline"] or ()).startswith(title)]


def can_mount() -> bool:
    """Whether a process may mount a disk that it alone sees."""
    try:
        command = ["unshare", "-Urm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
        return subprocess.run(command, capture_output=True).returncode == 0
    except OSError:
        return False


def kill(process: psutil.Process) -> None:
    """End a process as a crash or the kernel would: without a chance to clean up."""
    os.kill(process.pid, signal.SIGKILL)
