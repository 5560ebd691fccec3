"""Work in tasks gives what it gives here: the same results in the same order, and the same errors."""

import os
import signal
from functools import partial
from pathlib import Path

import psutil
import pytest
import ray

from pipelines.runtime.tasks import completed_tasks, map_in_tasks
from sr3core.errors import DataError
from tests.processes import wait_for


def doubled(number: int) -> int:
    if number < 0:
        raise DataError("negative; give a number that is not")
    return 2 * number


def test_here_and_in_tasks_results_are_in_order_and_errors_are_as_raised(ray_session: str) -> None:
    for count in (0, 1, 40):
        assert list(map_in_tasks(doubled, range(count))) == [2 * n for n in range(count)]
    with pytest.raises(DataError) as caught:
        list(map_in_tasks(doubled, [1, -1, 2]))
    assert str(caught.value) == "negative; give a number that is not"


@ray.remote(max_retries=0)
def killed_if_odd(number: int) -> int:
    if number % 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


@ray.remote(num_cpus=0, max_retries=0)
def waiting(folder: str, number: int) -> int:
    Path(folder, str(number)).touch()
    wait_for(Path(folder, "go").exists)
    return number


def test_tasks_that_end_are_reported_and_those_whose_process_dies_are_not(ray_session: str) -> None:
    found = completed_tasks(partial(killed_if_odd.remote, number) for number in range(6))
    assert sorted(found) == [0, 2, 4]


def test_no_more_tasks_are_started_than_may_be_under_way(ray_session: str, tmp_path: Path) -> None:
    started = []

    def start(number: int) -> ray.ObjectRef:
        started.append(number)
        return waiting.remote(str(tmp_path), number)

    results = completed_tasks((partial(start, number) for number in range(10**9)), limit=3)
    (tmp_path / "go").touch()
    for count in range(1, 6):
        next(results)
        assert len(started) <= 3 + count
    results.close()


@ray.remote(num_cpus=0, max_retries=0)
def forever(folder: str) -> None:
    Path(folder, f"pid-{os.getpid()}").touch()
    signal.pause()


def test_tasks_under_way_are_ended_with_the_iteration(ray_session: str, tmp_path: Path) -> None:
    (tmp_path / "go").touch()
    endless = partial(forever.remote, str(tmp_path))
    results = completed_tasks([endless, partial(waiting.remote, str(tmp_path), 0), endless])
    assert next(results) == 0
    wait_for(lambda: len(list(tmp_path.glob("pid-*"))) == 2)
    results.close()
    for pid in tmp_path.glob("pid-*"):
        wait_for(lambda pid=pid: not psutil.pid_exists(int(pid.name.removeprefix("pid-"))))
