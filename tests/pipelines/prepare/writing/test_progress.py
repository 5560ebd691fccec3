"""Progress is reported shard by shard, and left in the folder for `sr3 status`."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipelines.prepare import preparation
from pipelines.prepare.finished.status import prepare_status
from pipelines.prepare.preparation import prepare
from pipelines.prepare.writing import parallel_writer
from tests.pipelines.prepare.preparations import SAMPLES_PER_SHARD, config_for


def test_progress_is_reported_after_each_shard_and_left_in_the_folder(
    source: Path, tmp_path: Path, ray_session: None
) -> None:
    lines = []
    summary = prepare(
        config_for(source, tmp_path / "out", stages=("8-16",)), lambda progress: lines.append(progress.line())
    )
    assert len(lines) == summary.num_shards_written
    # 26 images, and again those of the one shard that holds a duplicate
    found = re.fullmatch(
        r"prepare: 0:00 left, (\d+)/(\d+) images, (\d+) rejected, (\d+)/(\d+) shards, \d+\.\d images/s", lines[-1]
    )
    assert found, lines[-1]
    images_done, num_images, num_rejects, done, num_shards = map(int, found.groups())
    assert done == num_shards == summary.num_shards_written
    assert 26 < images_done == num_images <= 26 + SAMPLES_PER_SHARD
    assert num_rejects >= sum(summary.num_rejects["8-16"].values())
    assert prepare_status(str(tmp_path / "out")).last_line == lines[-1]


def test_the_wait_for_the_first_shard_is_told(monkeypatch):
    events: list[str] = []

    @contextmanager
    def waiting_for(what: str) -> Iterator[None]:
        events.append(f"still {what}")
        yield
        events.append("over")

    def reports() -> Iterator[dict[str, Any]]:
        for number in range(2):
            events.append(f"report {number}")
            yield {"number": number}

    monkeypatch.setattr(parallel_writer, "waiting_for", waiting_for)
    assert [row["number"] for row in parallel_writer.first_awaited(reports())] == [0, 1]
    assert events == ["still writing the first shards", "report 0", "over", "report 1"]
    assert list(parallel_writer.first_awaited(iter([]))) == []


def test_the_listing_is_told(source: Path, tmp_path: Path, monkeypatch):
    told: list[str] = []

    @contextmanager
    def waiting_for(what: str) -> Iterator[None]:
        told.append(what)
        yield

    monkeypatch.setattr(preparation, "waiting_for", waiting_for)
    preparation.describe_plan(config_for(source, tmp_path / "out", stages=("8-16",)))
    assert told == [f"listing {source}"]
