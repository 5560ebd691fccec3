"""A separate Ray head with a job server on loopback, in its own process group."""

import json
import os
import socket
import subprocess
import sys
import urllib.request
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.processes import wait_for

BIN = Path(sys.executable).parent
MOST_STARTS = 5
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
    for _ in range(MOST_STARTS):
        with log.open("wb") as file:
            process = subprocess.Popen(
                command, env={**environment, **variables}, start_new_session=True, stdout=file, stderr=file
            )
        head = Head(f"http://127.0.0.1:{dashboard}", environment, process)
        try:
            wait_for(lambda head=head: head.process.poll() is not None or takes_jobs(head, token))
            if process.poll() is not None and "timed out during startup" in log.read_text():
                continue
            assert process.poll() is None, log.read_text()
            yield head
            return
        finally:
            end_node(process)
    raise AssertionError(log.read_text())


def end_node(process: subprocess.Popen) -> None:
    """SIGKILL to `ray start --block` and all below it: the raylet, the agents, a head's GCS and the jobs' drivers.

    A polite end would drain the node for 30 s.
    """
    if process.poll() is None:
        for child in (*psutil.Process(process.pid).children(recursive=True), process):
            with suppress(psutil.NoSuchProcess):  # it ended with the one before it
                child.kill()
    process.wait(30)


def takes_jobs(head: Head, token: str | None) -> bool:
    """Whether a job is accepted; the server answers some seconds before its agents can start one."""
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    request = urllib.request.Request(f"{head.address}/api/jobs/", json.dumps({"entrypoint": "true"}).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status == 200
    except OSError:
        return False
