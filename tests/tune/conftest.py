"""Fixtures of the search's tests."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.ingest import split_reader
from pipelines.shards.manifest import MADE_BY
from tests.tune.search.tiny_search import TinyRun, fake_load_split, make_images, write_run


@pytest.fixture
def held_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the prepared data by a few images in memory."""
    monkeypatch.setattr("tune.search.objective.task.load_split", fake_load_split)
    monkeypatch.setattr("tune.search.objective.references.load_split", fake_load_split)
    monkeypatch.setattr("tune.search.objective.task.operator_of", lambda data, stage: MADE_BY)
    monkeypatch.setattr("tune.search.objective.held_out_images.num_held_out", lambda stage, split: 80)


@pytest.fixture
def tiny_run(tmp_path: Path, held_out: None) -> TinyRun:
    """A run with a checkpoint."""
    return write_run(tmp_path / "run")


@pytest.fixture
def make_run() -> Callable[..., TinyRun]:
    """write_run, for tests that want another run."""
    return write_run


@pytest.fixture
def images() -> split_reader.SplitImages:
    """16 held-out images."""
    return make_images(16, 1)
