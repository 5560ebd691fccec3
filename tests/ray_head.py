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
from typing import Any, TypeVar

import psutil

from tests.processes import wait_for

T = TypeVar("T")

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


def init_ray(address: str = "local", **options: Any) -> None:
    """`ray.init` in this process; again, where the machine is too busy for Ray's 30 seconds.

    Args:
        address: of a Ray, or "local" for one of its own; by default Ray would join any cluster of the machine.
        options: of `ray.init`; those of a new Ray are left out where it is joined.
    """
    import ray

    if address != "local":
        ray.init(address, **{name: value for name, value in options.items() if name not in _OF_A_NEW_RAY})
        return
    started_in_time(lambda: ray.init("local", **options), ray.shutdown)


_OF_A_NEW_RAY = ("num_cpus", "object_store_memory", "include_dashboard", "dashboard_port")


def started_in_time(start: Callable[[], T], give_up: Callable[[], object] = lambda: None) -> T:
    """What `start` returns, which starts a node of Ray; again, where the machine is too busy for Ray's 30 seconds.

    Args:
        start: starts processes of this one.
        give_up: called after those of a start that failed were killed.
    """
    for number in range(MOST_STARTS):
        before = set(psutil.Process().children())
        try:
            return start()
        except Exception as error:  # Ray raises nothing finer
            if TOO_LATE not in str(error) or number == MOST_STARTS - 1:
                raise
            for child in set(psutil.Process().children()) - before:
                with suppress(psutil.NoSuchProcess):
                    child.kill()
            give_up()
    raise AssertionError("unreachable")


class SmallCluster:
    """Ray's own test cluster on this machine: a head, by default without CPUs, and nodes that come and go."""

    def __init__(self, head_cpus: int = 0, store_bytes: int = 80_000_000) -> None:
        from ray.cluster_utils import Cluster

        from cluster.session import without_dashboard

        self._store = {"object_store_memory": store_bytes}
        head = {"num_cpus": head_cpus, **self._store, **without_dashboard()}
        self._cluster: Any = started_in_time(lambda: Cluster(initialize_head=True, head_node_args=head))
        self.address: str = self._cluster.address

    def add_node(self, num_cpus: int = 1) -> Any:
        """Start another node, and return it."""
        return started_in_time(lambda: self._cluster.add_node(num_cpus=num_cpus, **self._store))

    def remove(self, node: Any) -> None:
        """Let a node leave; the head knows it when this returns."""
        self._cluster.remove_node(node)

    def lose(self, node: Any) -> None:
        """SIGKILL to a node's raylet, and its workers with it; the head finds out by its health checks."""
        self._cluster.remove_node(node, allow_graceful=False)

    def shutdown(self) -> None:
        """End all nodes."""
        self._cluster.shutdown()


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
