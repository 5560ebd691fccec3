"""The `sr3` command. This file imports nothing heavy: `sr3 --help` answers at once."""

import logging
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from sr3core.config import did_you_mean
from sr3core.errors import ConfigError, Sr3Error

COMMANDS: dict[str, str] = {
    "prepare": "turn images into WebDataset shards",
    "train": "train the stages of a preset side by side",
    "search": "search the best inference schedule of a trained stage",
    "sample": "draw images from noise with a trained cascade",
    "upscale": "upscale photos with a trained run",
    "evaluate": "measure a run, or any folder of images, as the paper's tables do",
    "report": "write a run's report as one HTML file",
    "status": "show how far a run or a preparation is",
    "verify": "re-check prepared shards: sums, offsets, what is missing; draw a contact sheet",
    "demo": "the whole chain on bundled photos, in minutes",
}

_MODULES = {"sample": "cluster.sample_command"}
"""Where a command is, unless it is in cluster.commands."""

USAGE_ERROR = 2
FAILURE = 1
INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0 done, 1 failed wholly or in part, 2 used wrongly."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_help())
        return 0
    if arguments[0] == "--version":
        from importlib.metadata import version

        print(version("sr3-on-ray"))
        return 0
    name, *rest = arguments
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    try:
        return _command(name)(rest)
    except ConfigError as error:
        print(f"sr3 {name}: {error}", file=sys.stderr)
        return USAGE_ERROR
    except Sr3Error as error:
        print(f"sr3 {name}: {error}", file=sys.stderr)
        return FAILURE
    except KeyboardInterrupt:
        print(f"\nsr3 {name}: interrupted; the same command goes on from here", file=sys.stderr)
        return INTERRUPTED


def _command(name: str) -> Callable[[list[str]], int]:
    if name not in COMMANDS:
        raise ConfigError(f"unknown command, {did_you_mean(name, COMMANDS)} `sr3 --help` lists all")
    return getattr(import_module(_MODULES.get(name, "cluster.commands")), name)


def _help() -> str:
    lines = [
        "usage: sr3 COMMAND [OPTIONS]",
        "",
        "SR3 super-resolution on Ray, from images to a report.",
        "",
        "commands:",
    ]
    lines += [f"  {name:<10} {summary}" for name, summary in COMMANDS.items()]
    lines += ["", "`sr3 COMMAND --help` tells a command's options; `sr3 demo` is a good first one."]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
