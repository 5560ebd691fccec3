"""Tasks on a few Ray actors, each of which holds what is expensive to load.

Ray Data's actor pool does not fit here. It passes its actors their code through the object store, after which they
cannot be restarted (Ray warns of it), and one row that kills its process ends all the others. `sr3 upscale` and
`sr3 evaluate` take arbitrary images, where one photo may exhaust a process's memory and must not end the rest.
`sr3 sample`, whose rows are all alike, uses Ray Data's pool.
"""

from collections import deque
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
) -> Iterator[tuple[T, Any]]:
    """Yield (task, result of an actor's work(task)) as tasks finish, in no particular order.

    An actor that dies is replaced, and its task is tried once more; if that one dies too, its error is yielded as the
    result. An error in an actor's constructor is raised, since it would stop every task.

    Args:
        make_actor: starts an actor with a method `work`.
        tasks: arguments of `work`.
        num_actors: actors that work in parallel, one task each.
        on_tick: called with the busy actors, twice a second and after every task.

    Raises:
        Sr3Error: actors cannot start; gives the reason.
        Exception: whatever `work` raises: a bug, or something that would stop every task.
    """
    import ray
    import ray.exceptions

    idle: list[Any] = []
    busy: dict[Any, tuple[Any, int]] = {}
    waiting = deque(range(len(tasks)))
    tried: set[int] = set()
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
                    if index not in tried:
                        tried.add(index)
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
