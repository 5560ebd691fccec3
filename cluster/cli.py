"""The `sr3` command. This file imports nothing heavy: `sr3 --help` answers at once."""

import logging
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from cluster.exits import FAILURE, INTERRUPTED, PIPE_CLOSED, USAGE_ERROR
from cluster.remote.addresses import Target, take_target
from sr3core.config import did_you_mean
from sr3core.errors import ConfigError, Sr3Error

COMMANDS: dict[str, str] = {
    "prepare": "turn images into WebDataset shards",
    "train": "train the stages of a preset side by side",
    "search": "search the best inference schedule of a trained stage",
    "sample": "draw images from noise with a trained cascade",
    "upscale": "upscale photos with a trained run",
    "evaluate": "measure a run, or any folder of images, as the paper's tables do",
    "ablate": "train and compare Table 5's arms of a preset",
    "report": "write a run's report as one HTML file",
    "study": "ask people: a two-alternative forced-choice study, its server and its results",
    "retrain": "train on what is new, and promote the model if it is better; for a timer",
    "models": "list a registry's versions, and roll back to one",
    "status": "show how far a run or a preparation is",
    "verify": "re-check prepared shards: sums, offsets, what is missing; draw a contact sheet",
    "demo": "the whole chain on bundled photos, in minutes",
}

CLUSTER_COMMANDS: dict[str, str] = {
    "jobs": "list the jobs of a cluster",
    "logs": "print a job's log, or follow it to its end",
    "stop": "stop a job",
    "doctor": "check this machine, or every node of a cluster, and say what to mend",
    "schedule": "write the Kubernetes manifest that runs a command on a timer",
}

NEVER_SUBMITTED = ("jobs", "logs", "stop", "schedule")
"""Commands that are about a cluster and do not run on it."""

_MODULES = {
    "ablate": "cluster.ablate_command",
    "evaluate": "cluster.evaluate_command",
    "sample": "cluster.sample_command",
    "study": "cluster.study_commands",
    "retrain": "cluster.retrain_commands",
    "models": "cluster.retrain_commands",
}
"""Where a command is, unless it is in cluster.commands."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0 done, 1 failed wholly or in part, 2 used wrongly.

    A command for a job server runs there, and its exit status is the job's.
    """
    try:
        status = _main(arguments)
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # who reads our output has had enough; what is still buffered goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED


def _main(arguments: Sequence[str] | None) -> int:
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    name = ""
    try:
        target, arguments = take_target(arguments)
        if not arguments or arguments[0] in ("-h", "--help"):
            print(_help())
            return 0
        if arguments[0] == "--version":
            from importlib.metadata import version

            print(version("sr3-on-ray"))
            return 0
        name, *rest = arguments
        return _run(name, rest, target)
    except ConfigError as error:
        print(f"sr3 {name}: {error}", file=sys.stderr)
        return USAGE_ERROR
    except Sr3Error as error:
        print(f"sr3 {name}: {error}", file=sys.stderr)
        return FAILURE
    except KeyboardInterrupt:
        print(f"\nsr3 {name}: interrupted; the same command goes on from here", file=sys.stderr)
        return INTERRUPTED


def _run(name: str, arguments: list[str], target: Target) -> int:
    command = command_of(name)
    if name in NEVER_SUBMITTED:
        return command([*target.as_option(), *arguments])
    if not target.is_job_server or {"--help", "-h", "--print-config"} & set(arguments):
        target.refuse_job_options()
        return command([*arguments, *target.as_option()])
    from cluster.remote.submit import submit

    return submit(target, name, arguments)


def command_of(name: str) -> Callable[[list[str]], int]:
    """The function that runs a command on its arguments and returns its exit status.

    Raises:
        ConfigError: there is no such command.
    """
    if name in CLUSTER_COMMANDS:
        return getattr(import_module("cluster.cluster_commands"), name)
    if name not in COMMANDS:
        known = [*COMMANDS, *CLUSTER_COMMANDS]
        raise ConfigError(f"unknown command, {did_you_mean(name, known)} `sr3 --help` lists all")
    return getattr(import_module(_MODULES.get(name, "cluster.commands")), name)


def _help() -> str:
    lines = [
        "usage: sr3 [--address URL [--working-dir DIR] [--detach]] COMMAND [OPTIONS]",
        "",
        "SR3 super-resolution on Ray, from images to a report.",
        "",
        "commands:",
        *_listed(COMMANDS),
        "",
        "on a cluster:",
        *_listed(CLUSTER_COMMANDS),
        "",
        "  --address http://HOST:8265   run COMMAND as a job there, follow its log, return its exit status;",
        "                               RAY_ADDRESS does the same. Ctrl-C stops the job.",
        "  --working-dir DIR            upload the files that git tracks in DIR; without it, the nodes' own sr3 runs",
        "  --detach                     do not follow the job",
        "",
        "`sr3 COMMAND --help` tells a command's options; `sr3 demo` is a good first one.",
    ]
    return "\n".join(lines)


def _listed(commands: dict[str, str]) -> list[str]:
    return [f"  {name:<10} {summary}" for name, summary in commands.items()]
