"""The commands, a file each: Options, COMMAND_LINE and run(), with a read() if reading needs more than COMMAND_LINE."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from cluster.catalog import COMMANDS
from sr3core.config import did_you_mean
from sr3core.errors import ConfigError


@dataclass(frozen=True)
class LoadedCommand:
    """A command's two functions."""

    read: Callable[[list[str]], Any]
    """Reads and checks the options; touches no data. Help and mistakes print and exit; raises ConfigError."""
    run: Callable[[Any], int]
    """Does what the options say, and returns the exit status."""


def load(name: str) -> LoadedCommand:
    """A command.

    Raises:
        ConfigError: there is no such command; suggests the nearest.
    """
    if name not in COMMANDS:
        raise ConfigError(f"unknown command {name!r}, {did_you_mean(name, COMMANDS)} `sr3 --help` lists all")
    module = import_module(f"cluster.commands.{COMMANDS[name].module}")
    return LoadedCommand(module.read if hasattr(module, "read") else module.COMMAND_LINE.read, module.run)
