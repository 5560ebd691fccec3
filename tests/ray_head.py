"""A separate Ray head with a job server on loopback, in its own process group."""

import json
import os
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.processes import wait_for

BIN = Path(sys.executable).parent
MOST_STARTS = 5
TOO_LATE = "timed out during startup"
"""Ray gives a node 30 seconds to start, whatever else the machine does."""


@dataclass(frozen=True)
class Head:
    """A running head."""

    address: str
    """Of its job server."""
    environment: dict[str, str]
    """Of a client of it."""
    process: subprocess.Popen
    """`ray start --head --block`."""


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def ray_head(temporary: Path, *options: str, token: str | None = None, gcs_port: int | None = None, **variables: str):
    """Start a head, wait until it takes jobs, and end it by its own process group.

    Args:
        temporary: folder for its log.
        options: of `ray start`.
        token: turns token authentication on.
        gcs_port: where its GCS listens; a free port by default.
        variables: of its environment.
    """
    port = gcs_port or free_port()
    dashboard = free_port()
    environment = {**os.environ, "RAY_AUTH_MODE": "token" if token else "disabled"}
    environment |= {"RAY_AUTH_TOKEN": token} if token else {}
    environment.pop("RAY_ADDRESS", None)
    environment["PATH"] = f"{BIN}:{environment['PATH']}"  # a job's `python` is the head's
    command = [str(BIN / "ray"), "start", "--head", "--block", f"--port={port}", f"--dashboard-port={dashboard}"]
    command += ["--dashboard-host=127.0.0.1", "--node-ip-address=127.0.0.1", "--object-store-memory=200000000"]
    command += [f"--ray-client-server-port={free_port()}"]
    command += [f"--dashboard-agent-listen-port={free_port()}"]  # the default is taken by the session's own Ray
    command += ["--disable-usage-stats", f"--temp-dir=/tmp/sr3-{port}", *options]
    log = temporary / "head.log"
    address = f"http://127.0.0.1:{dashboard}"
    with ray_node(command, {**environment, **variables}, log, lambda: takes_jobs(address, token)) as process:
        yield Head(address, environment, process)


@contextmanager
def ray_node(command: list[str], environment: dict[str, str], log: Path, is_ready: Callable[[], bool]):
    """Run `ray start --block` until its node is ready; again, where the machine is too busy for Ray's 30 seconds."""
    told = ""
    for _ in range(MOST_STARTS):
        with log.open("wb") as file:
            process = subprocess.Popen(command, env=environment, start_new_session=True, stdout=file, stderr=file)
        try:
            wait_for(lambda process=process: process.poll() is not None or is_ready())
            if process.poll() is None:
                yield process
                return
            told = log.read_text(encoding="utf-8")
            assert TOO_LATE in told, told
        finally:
            end_node(process)
    raise AssertionError(told)


def init_ray(**options: Any) -> None:
    """`ray.init("local", ...)` in this process; again, where the machine is too busy for Ray's 30 seconds."""
    import ray

    for number in range(MOST_STARTS):
        try:
            ray.init("local", **options)  # by default Ray would join any cluster that it finds on the machine
            return
        except Exception as error:  # Ray raises nothing finer
            if TOO_LATE not in str(error) or number == MOST_STARTS - 1:
                raise
            for child in psutil.Process().children():
                if child.name() in ("raylet", "gcs_server"):
                    child.kill()
            ray.shutdown()


def end_node(process: subprocess.Popen) -> None:
    """SIGKILL to `ray start --block` and all below it: the raylet, the agents, a head's GCS and the jobs' drivers.

    A polite end would drain the node for 30 s.
    """
    if process.poll() is None:
        for child in (*psutil.Process(process.pid).children(recursive=True), process):
            with suppress(psutil.NoSuchProcess):  # it ended with the one before it
                child.kill()
    process.wait(30)


def takes_jobs(address: str, token: str | None) -> bool:
    """Whether a job is accepted; the server answers some seconds before its agents can start one."""
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    request = urllib.request.Request(f"{address}/api/jobs/", json.dumps({"entrypoint": "true"}).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status == 200
    except OSError:
        return False
