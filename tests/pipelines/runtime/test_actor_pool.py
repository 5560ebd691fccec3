"""Tasks on actors: one that dies costs at most its own task, and a mistake is raised as what it is."""

import os
import signal

import pytest

from pipelines.runtime.actor_pool import run_on_actors
from sr3core.errors import ConfigError, Sr3Error


class Worker:
    """Doubles numbers; dies of 13 always, of a path the first time, and refuses 99."""

    def work(self, task: int | str) -> int:
        if task == 99:
            raise ConfigError("99 is refused")
        if isinstance(task, str) and not os.path.exists(task):
            open(task, "w", encoding="utf-8").close()
            os.kill(os.getpid(), signal.SIGKILL)
        if task == 13:
            os.kill(os.getpid(), signal.SIGKILL)
        return 0 if isinstance(task, str) else 2 * task


def make_worker():
    import ray

    return ray.remote(Worker).options(num_cpus=1).remote()


def test_a_dead_actor_is_replaced_and_a_task_that_kills_twice_is_reported(ray_session, tmp_path):
    import ray.exceptions

    tasks = [1, 13, 2, str(tmp_path / "died once"), 3]
    results = dict(run_on_actors(make_worker, tasks, num_actors=2))
    assert results.keys() == set(tasks)
    assert isinstance(results.pop(13), ray.exceptions.RayActorError)
    assert results == {1: 2, 2: 4, tasks[3]: 0, 3: 6}


def test_a_task_is_tried_as_often_as_is_said(ray_session, tmp_path):
    results = dict(run_on_actors(make_worker, [str(tmp_path / "died once")], num_actors=1, num_tries=1))
    assert [type(result).__name__ for result in results.values()] == ["ActorDiedError"]


def test_a_mistake_is_raised_as_itself(ray_session):
    with pytest.raises(ConfigError, match="99 is refused"):
        list(run_on_actors(make_worker, [99], num_actors=1))


def test_actors_that_cannot_start_say_why(ray_session):
    import ray

    class Unready:
        """Lacks what it needs."""

        def __init__(self) -> None:
            raise ConfigError("the key is missing")

        def work(self, task: int) -> int:
            return task

    with pytest.raises(Sr3Error, match=r"could not start: .*the key is missing$"):
        list(run_on_actors(lambda: ray.remote(Unready).remote(), [1, 2], num_actors=1))
