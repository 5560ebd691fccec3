"""Rows through Ray Data: one whose process dies is not reported, and the driver holds a window of them."""

import os
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pipelines.runtime.row_tasks import map_rows


def killed_if_odd(row: dict[str, Any]) -> dict[str, Any]:
    if row["number"] % 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return row


def counted(row: dict[str, Any], folder: str) -> dict[str, Any]:
    number = row["number"]
    Path(folder, f"{number}-{os.getpid()}-{len(os.listdir(folder))}").touch()
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return {"double": 2 * number}


def test_rows_that_end_are_reported_and_those_whose_process_dies_are_not(ray_session: str) -> None:
    found = map_rows(killed_if_odd, ({"number": number} for number in range(6)))
    assert sorted(row["number"] for row in found) == [0, 2, 4]


def test_a_row_whose_process_dies_is_begun_once(ray_session: str, tmp_path: Path) -> None:
    found = list(map_rows(partial(counted, folder=str(tmp_path)), [{"number": number} for number in range(3)], limit=1))
    assert sorted(row["double"] for row in found) == [0, 4]
    assert sorted(path.name.split("-")[0] for path in tmp_path.iterdir()) == ["0", "1", "2"]


def test_rows_go_through_in_windows(ray_session: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Two CPUs and one row a CPU: rows are taken three at a time, and all come back."""
    monkeypatch.setattr("pipelines.runtime.row_tasks._MIN_WINDOW", 3)
    monkeypatch.setattr("pipelines.runtime.row_tasks._ROWS_PER_CPU", 1)
    taken: list[int] = []

    def rows() -> Iterator[dict[str, Any]]:
        for number in range(8):
            taken.append(number)
            yield {"number": 2 * number}

    results = map_rows(killed_if_odd, rows())
    first = next(results)
    assert taken == [0, 1, 2]
    assert sorted(row["number"] for row in (first, *results)) == [0, 2, 4, 6, 8, 10, 12, 14]
