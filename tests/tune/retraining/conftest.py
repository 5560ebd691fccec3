"""Chains that several tests start from, made once a test process."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.registry.registry import Registry
from pipelines.storage.leases.journal import Journal
from pipelines.storage.leases.lease import is_held
from tests.commands import ROOT
from tests.processes import wait_for
from tests.tune.retraining.chains import add_photos, make_config, moved, retrained, write

DRIVER = Path(__file__).with_name("retrain_driver.py")


class Driver:
    """The process that forks a child for each retraining; see retrain_driver.py."""

    def __init__(self, process: subprocess.Popen[str], address: str) -> None:
        self._process, self._address = process, address

    def start(self, config: str, kill: str | None = None) -> int:
        """Start a retraining that dies at the point `kill`; its process id."""
        arguments = ["retrain", config, "--address", self._address]
        assert self._process.stdin
        self._process.stdin.write(json.dumps({"arguments": arguments, "kill": kill}) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def status(self) -> int:
        """Wait for the retraining; its exit status, negative for a signal."""
        return self._answer()

    def _answer(self) -> int:
        assert self._process.stdout
        return int(self._process.stdout.readline())


@pytest.fixture(scope="session")
def first(photos: Path, tmp_path_factory: pytest.TempPathFactory, ray_session: str) -> Path:
    """A chain after its first retraining."""
    folder = tmp_path_factory.mktemp("chain") / "first"
    add_photos(photos, folder, 0, 60)
    assert retrained(folder, 160) == 0
    return folder


@pytest.fixture
def chain(first: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return moved(first, tmp_path / "chain")


@pytest.fixture(scope="session")
def driver(ray_session: str) -> Iterator[Driver]:
    """Retrainings in processes of their own, on this process's Ray."""
    command = [sys.executable, str(DRIVER)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        yield Driver(process, ray_session)
        assert process.stdin
        process.stdin.close()


@pytest.fixture(scope="session")
def better(
    first: Path, photos: Path, driver: Driver, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, int, subprocess.CompletedProcess[str]]:
    """A copy of the chain, retrained on more photos in another process; its id, and a second command's result."""
    folder = moved(first, tmp_path_factory.mktemp("better") / "chain")
    add_photos(photos, folder, 60, 90)
    config = write(folder, make_config(folder, 160))
    child = driver.start(config)
    lease = Journal(Registry(str(folder / "models")).lease)
    wait_for(lambda: is_held(lease.last()))
    command = [sys.executable, "-m", "cluster", "retrain", config]
    second = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert driver.status() == 0
    return folder, child, second
