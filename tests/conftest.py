"""Shared fixtures: one Ray and one S3 server a test process, and bundled photos."""

import logging
import os
import shutil
import signal
import tempfile
from collections import Counter
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.ray_head import init_ray
from tests.s3_server import ENVIRONMENT as S3_KEYS
from tests.s3_server import S3Server
from tests.skips import allowed, shared_folder

settings.register_profile("here", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("here")

# Before any import of numpy: tests run side by side, and its threads, which wait by spinning, would take each other's
# cores. A Fréchet distance of a few images then costs ten times as much.
os.environ.update(OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1")
# Before any import of ray: a test must not write tokens to the home directory, nor draw progress bars.
os.environ.update(
    RAY_AUTH_MODE="disabled",
    RAY_USAGE_STATS_ENABLED="0",
    RAY_DATA_DISABLE_PROGRESS_BARS="1",
    RAY_AIR_NEW_OUTPUT="0",
    RAY_TRAIN_HEALTH_CHECK_INTERVAL_S="0.2",
    RAY_TRAIN_ENABLE_PREEMPTION_WATCHER="0",  # a process for each training; on where a node is reclaimed
    **S3_KEYS,
)

# What runs in buckets are worked on in; the workers of pytest-xdist inherit it, and have one together.
OWN_COPIES = f"{tempfile.gettempdir()}/sr3-tests-{os.getpid()}"
os.environ.setdefault("SR3_WORKING_COPIES", OWN_COPIES)

# A shell starts what it runs in the background deaf to Ctrl-C, and children inherit that; tests interrupt commands.
signal.signal(signal.SIGINT, signal.default_int_handler)

PHOTOS = Path(__file__).resolve().parents[1] / "pipelines" / "demo_photos"
SHARED_DATA = shared_folder() / "data"
TESTS = Path(__file__).resolve().parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what starts Ray, directly or not, and the rest as units; the longest files come first, and are no tail."""
    first: dict[Path, int] = {}
    for item in items:
        folder = item.path.relative_to(TESTS).parts[0]
        if folder in ("e2e", "faults") or "ray_session" in getattr(item, "fixturenames", ()):
            item.add_marker("ray")
        rank = 0 if item.get_closest_marker("slow") else 1 if item.get_closest_marker("ray") else 2
        if rank == 2 and not item.get_closest_marker("quiet"):
            item.add_marker("unit")
        first[item.path] = min(rank, first.get(item.path, rank))
    items.sort(key=lambda item: first[item.path])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that is skipped for a reason that tests/skips.py does not allow on this machine has failed."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail"):
        reason = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
        if allowed(reason) is None:
            report.outcome = "failed"
            report.longrepr = (
                f"{item.nodeid} was skipped, for a reason that tests/skips.py does not allow here: {reason}"
            )
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what was not tested on this machine, and why."""
    reasons = Counter(
        str(r.longrepr[2]) for r in terminalreporter.stats.get("skipped", ()) if isinstance(r.longrepr, tuple)
    )
    if reasons:
        terminalreporter.section("NOT TESTED on this machine", red=True, bold=True)
    for reason, count in reasons.items():
        entry = allowed(reason.removeprefix("Skipped: "))
        terminalreporter.line(f"{count} tests of {entry.untested if entry else 'an unknown thing'}: {reason}")


def pytest_unconfigure() -> None:
    """Delete this process's working copies of runs in buckets."""
    shutil.rmtree(OWN_COPIES, ignore_errors=True)


@pytest.fixture(scope="session", autouse=True)
def one_torch_thread() -> None:
    """Tests run side by side; two of them with two threads each on two cores would wait for one another."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def photos() -> Path:
    """The folder of real photos that the repository bundles, 128x128 JPEGs."""
    return PHOTOS


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """More real images and weights, where a machine has them beside the repository."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the larger sample data are not beside this checkout")
    return SHARED_DATA


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """The one S3 server of this process, at `s3://BUCKET/PREFIX?endpoint_override={s3_server.endpoint}`.

    Its keys are in the environment from the start, so that Ray's workers and all other processes know them too.
    """
    folder = tmp_path_factory.mktemp("s3") / "data"
    folder.mkdir()
    with S3Server(folder) as server:
        yield server


@pytest.fixture(scope="session")
def ray_session() -> Iterator[str]:
    """The one local Ray of this process, of two CPUs; its value is the address.

    What runs in the test's own process (`main([...])`, `prepare(...)`) finds it by itself. A command in a process of
    its own is given the address, or it starts another Ray: `run_sr3(..., "--address", ray_session)`; see
    tests/commands.py.
    """
    import ray

    from cluster.session import without_dashboard

    init_ray(
        num_cpus=2,
        object_store_memory=500_000_000,
        log_to_driver=False,
        logging_level=logging.WARNING,
        **without_dashboard(),
    )
    yield ray.get_runtime_context().gcs_address
    ray.shutdown()
