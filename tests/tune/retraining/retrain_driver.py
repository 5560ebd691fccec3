"""Retrainings in processes of their own, for the tests that kill them: imports once, then forks a child a line.

Each line of input is JSON: {"arguments": of `sr3 retrain`, "kill": where it is to die, or null}. For each, the child's
process id and then its exit status are printed.
"""

import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import ray.data  # noqa: F401 - a child then starts with it
import ray.train.torch  # noqa: F401
import ray.tune  # noqa: F401
import torch
import torch._dynamo  # noqa: F401 - an optimizer imports it

import pipelines.prepare.preparation
import pipelines.registry.registry
import pipelines.training.checkpoints
import tune.retraining.compare
import tune.retraining.retrain
import tune.search.schedule_search
from cluster.cli import main
from pipelines.registry.registry import Registry


def die() -> None:
    """End the process like a power cut: nothing is cleaned up."""
    os.kill(os.getpid(), signal.SIGKILL)


def after(calls: int, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, which ends the process at the end of its n-th call."""
    count = 0

    def wrapped(*arguments: Any, **options: Any) -> Any:
        nonlocal count
        result = function(*arguments, **options)
        count += 1
        if count == calls:
            die()
        return result

    return wrapped


def in_the_search(run: str, config: Any, report: Any) -> Any:
    """The search, until it reports its third trial."""

    def told(line: str) -> None:
        report(line)
        if line.startswith("trial 3/"):
            die()

    return tune.search.schedule_search.search(run, config, told)


def arm(point: str | None) -> None:
    """Let this process die at a point of the chain."""
    if point == "preparation":
        tune.retraining.retrain.add_new = lambda config: pipelines.prepare.preparation.add_new(
            config, lambda progress: die()
        )
    elif point == "training":
        pipelines.training.checkpoints.write_checkpoint = after(2, pipelines.training.checkpoints.write_checkpoint)
    elif point == "search":
        tune.retraining.retrain.search = in_the_search
    elif point == "comparison":
        tune.retraining.compare.upscale_split = after(1, tune.retraining.compare.upscale_split)
    elif point == "publication":
        pipelines.registry.registry.put_file = after(2, pipelines.registry.registry.put_file)
    elif point == "before promotion":
        Registry.promote = lambda *arguments: die()  # type: ignore[method-assign,assignment]
    elif point == "after promotion":
        Registry.promote = after(1, Registry.promote)  # type: ignore[method-assign]
    else:
        assert point is None, point


POINTS = (*("preparation", "training", "search", "comparison", "publication", "before promotion", "after promotion"),)

if __name__ == "__main__":
    torch.set_num_threads(1)
    for line in sys.stdin:
        wanted = json.loads(line)
        child = os.fork()
        if child == 0:
            os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # the parent's stdout is for answers
            arm(wanted["kill"])
            os._exit(main(wanted["arguments"]))
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
