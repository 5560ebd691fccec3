"""Tasks on a few Ray actors, each of which holds what is expensive to load.

Ray Data's actor pool does not fit here. It passes its actors their code through the object store, after which they
cannot be restarted: Ray says so on the terminal, in a line that reads as a failure. It shows nothing until the first
row is done, and one row that kills its process ends all the others, although one photo may exhaust a process's memory.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from sr3core.errors import Sr3Error

T = TypeVar("T")
_TICK_SECONDS = 0.5


def run_on_actors(
    make_actor: Callable[[], Any],
    tasks: Sequence[T],
    num_actors: int,
    on_tick: Callable[[list[Any]], None] | None = None,
    num_tries: int = 2,
) -> Iterator[tuple[T, Any]]:
    """Yield (task, result of an actor's work(task)) as tasks finish, in no particular order.

    An actor that dies is replaced, and its task is tried again; if it is the last try that dies, its error is yielded
    as the result. An error in an actor's constructor is raised, since it would stop every task.

    Args:
        make_actor: starts an actor with a method `work`.
        tasks: arguments of `work`.
        num_actors: actors that work in parallel, one task each.
        on_tick: called with the busy actors, twice a second and after every task.
        num_tries: how often a task is tried: twice where a task may itself kill its process, more often where only a
            node that goes does.

    Raises:
        Sr3Error: actors cannot start; gives the reason.
        Exception: whatever `work` raises: a bug, or something that would stop every task.
    """
    import ray
    import ray.exceptions

    idle: list[Any] = []
    busy: dict[Any, tuple[Any, int]] = {}
    waiting = deque(range(len(tasks)))
    tried: Counter[int] = Counter()
    try:
        while waiting or busy:
            while waiting and len(busy) < num_actors:
                actor, index = idle.pop() if idle else make_actor(), waiting.popleft()
                busy[actor.work.remote(tasks[index])] = actor, index
            for reference in ray.wait(list(busy), timeout=_TICK_SECONDS)[0]:
                actor, index = busy.pop(reference)
                try:
                    result = ray.get(reference)
                except ray.exceptions.RayTaskError as error:
                    raise error.cause from error
                except ray.exceptions.RayActorError as error:
                    tried[index] += 1
                    if tried[index] < num_tries:
                        waiting.append(index)
                        continue
                    if error.actor_init_failed:
                        raise Sr3Error(f"a worker could not start: {str(error).strip().splitlines()[-1]}") from error
                    result = error
                else:
                    idle.append(actor)
                yield tasks[index], result
            if on_tick:
                on_tick([actor for actor, _ in busy.values()])
    finally:
        for actor in (*idle, *(actor for actor, _ in busy.values())):
            ray.kill(actor)
