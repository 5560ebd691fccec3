"""Connecting to Ray: to the named cluster, to the one that this job runs on, or to a local one."""

import logging
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cluster.before_ray import check_cluster, check_machine, ray_folder
from cluster.own_packages import in_the_way
from cluster.stopping import handlers_kept
from pipelines.runtime.waiting import waiting_for
from sr3core.errors import Sr3Error, StorageError

OBJECT_STORE_BYTES = 1_000_000_000
"""Object store of a local Ray: the pipelines keep images in files, so most of Ray's 30% of the memory would idle."""
NUM_STARTS = 2
"""How often a local Ray is started: the first time its files come from a disk that may be slow."""
TOO_LATE = "timed out during startup"
"""What Ray says where a node has not started after 30 seconds, which cannot be set."""
log = logging.getLogger(__name__)


@contextmanager
def ray_session(address: str | None = None) -> Iterator[None]:
    """A connection to Ray for the duration of a command.

    Args:
        address: a running cluster's. None takes RAY_ADDRESS, which a submitted job has; without it, a local Ray is
            started, and ended with the command.

    Raises:
        StorageError: no cluster answers at the address, or its object store is full.
        Sr3Error: a local Ray does not start, or its workers would find other packages than this program's.
    """
    if (found := in_the_way([os.getcwd(), *sys.path])) is not None:
        raise Sr3Error(f"{found} in Ray's workers, which search this folder; start sr3 in another one, or rename it")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    # Workers of half a CPU make more processes than cores, about which Ray would warn again and again.
    os.environ.setdefault("RAY_worker_maximum_startup_concurrency", "16")
    with waiting_for("loading Ray"):
        import ray
        import ray.data  # noqa: F401

    # Their notices (execution plans, progress bars, tokens) would bury our own lines.
    for name in ("ray.data", "ray._private.authentication.authentication_token_setup"):
        logging.getLogger(name).setLevel(logging.ERROR)
    if ray.is_initialized():  # inside a test's or a notebook's session
        with _ray_errors():
            yield
        return
    _connect(address or os.environ.get("RAY_ADDRESS") or "local")
    try:
        with _ray_errors():
            yield
    finally:
        ray.shutdown()


def _connect(address: str) -> None:
    local: dict[str, Any] = {}
    if address == "local":
        check_machine()
        local = {"object_store_memory": OBJECT_STORE_BYTES, **without_dashboard()}
        what = "starting Ray on this machine"
    else:
        check_cluster(address)
        what = f"joining the Ray cluster at {address}"
    log.info("%s …", what)
    try:
        with handlers_kept(), waiting_for(what):
            _init(address, local, 1 if address != "local" else NUM_STARTS)
    except ConnectionError as error:
        raise StorageError(
            f"no Ray cluster answers at {address}: {error}; start one, or leave out --address to use a local Ray"
        ) from error
    except Exception as error:  # Ray raises nothing finer
        if address != "local":
            raise Sr3Error(f"the Ray cluster at {address} cannot be joined: {_first_line(error)}") from error
        why = (
            f"within its 30 seconds, {NUM_STARTS} times: the machine may be too busy, or out of memory or disk"
            if TOO_LATE in str(error)
            else f"({_first_line(error)})"
        )
        raise Sr3Error(
            f"Ray did not start on this machine {why}. Free some memory and disk and run the same command again; Ray's"
            f" logs are in {ray_folder()}/session_latest/logs"
        ) from error


def _init(address: str, local: dict[str, Any], num_starts: int) -> None:
    """ray.init; again, where a node took longer than Ray allows. What is left of it ends with this process."""
    import ray

    for number in range(1, num_starts + 1):
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING, **local)
            return
        except Exception as error:  # Ray raises nothing finer
            if TOO_LATE not in str(error) or number == num_starts:
                raise
            log.info("Ray took longer than the 30 seconds that it gives itself; starting it again …")
            ray.shutdown()


def without_dashboard() -> dict[str, Any]:
    """Options of `ray.init` for a Ray of this process alone.

    Also without a dashboard Ray records the address of one, by default port 8265, where that of another Ray on this
    machine may answer. Ray Train asks there whether its controller lives, and takes the workers away from one that is
    not known there. So it records a port at which nobody listens.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return {"include_dashboard": False, "dashboard_port": probe.getsockname()[1]}


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__).strip()


@contextmanager
def _ray_errors() -> Iterator[None]:
    """Report Ray's own errors: a full object store, and lost workers and nodes."""
    from ray.exceptions import ObjectStoreFullError, OutOfDiskError, RayError, RayTaskError

    try:
        yield
    except (ObjectStoreFullError, OutOfDiskError) as error:
        raise StorageError(
            f"Ray's object store is full, and so is its disk ({_first_line(error)}); free space in {ray_folder()},"
            " Ray's temporary folder, or start Ray with a larger --object-store-memory, and run the same command again"
            " to resume"
        ) from error
    except RayTaskError:  # what a task raised, which is none of Ray's
        raise
    except RayError as error:
        raise Sr3Error(
            f"Ray lost a process or a node that the command needs ({type(error).__name__}: {_first_line(error)}); run"
            " the same command again to resume"
        ) from error
