"""One set of shards, two reference runs and one preparation, all without faults, for all fault tests."""

import shutil
from pathlib import Path

import pytest

from pipelines.prepare.preparation import prepare
from pipelines.runs.run_folder import Run, open_run
from pipelines.settings.prepare import PrepareConfig
from pipelines.training.parallel_stages import train_run
from tests.faults.fault_runs import start
from tests.faults.interrupted_preparations import Pipe, config_for, data_of, picture, quiet
from tests.once import once
from tests.preparing import some_photos


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory, photos: Path, ray_session: str) -> str:
    """60 real photos as shards of the stages 8-16 and 4-8, a fifth held out."""

    def make(folder: Path) -> None:
        source, out = str(some_photos(photos, folder / "photos", 60)), str(folder / "shards")
        prepare(PrepareConfig(source=source, out=out, stages=("8-16", "4-8"), validation_fraction=0.2))

    return str(once(tmp_path_factory, "fault-data", make) / "shards")


def _trained(run: Run) -> None:
    assert [result.error for result in train_run(run)] == [None]


@pytest.fixture(scope="session")
def uninterrupted(data: str, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The run without a fault, in one process."""
    make = lambda folder: _trained(start(folder / "run", data, placement__num_workers=0))  # noqa: E731
    return open_run(once(tmp_path_factory, "alone", make) / "run")


@pytest.fixture(scope="session")
def on_two_workers(data: str, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The run without a fault, on two workers of the tests' Ray."""
    changes = {"placement__num_workers": 2, "placement__cpus_per_worker": 0.25}
    make = lambda folder: _trained(start(folder / "run", data, **changes))  # noqa: E731
    return open_run(once(tmp_path_factory, "on-two-workers", make) / "run")


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 pictures of noise."""
    folder = tmp_path_factory.mktemp("faults") / "source"
    folder.mkdir()
    for seed in range(24):
        (folder / f"{seed:02d}.png").write_bytes(picture(seed, 40))
    return folder


@pytest.fixture(scope="session")
def expected(source: Path, tmp_path_factory: pytest.TempPathFactory, ray_session: str) -> dict[str, bytes]:
    """What an undisturbed preparation of `source` makes."""
    out = tmp_path_factory.mktemp("expected")
    prepare(config_for(source, out), quiet)
    return data_of(out)


@pytest.fixture
def piped(source: Path, tmp_path: Path) -> tuple[Path, Pipe]:
    """The source, with an image in it that can become a pipe."""
    copy = tmp_path / "source"
    shutil.copytree(source, copy)
    return copy, Pipe(copy / "11.png")
