"""The commands, one file each: its Options, COMMAND_LINE, read() and run()."""

from importlib import import_module
from typing import Any, Protocol, cast

from cluster.catalog import COMMANDS
from sr3core.config import did_you_mean
from sr3core.errors import ConfigError


class CommandModule(Protocol):
    """What a module of this package holds."""

    def read(self, arguments: list[str]) -> Any:
        """Read and check the options; touches no data. Help and mistakes print and exit.

        Raises:
            ConfigError: an option is wrong.
        """
        ...

    def run(self, options: Any) -> int:
        """Do what the options say, and return the exit status."""
        ...


def load(name: str) -> CommandModule:
    """The module of a command.

    Raises:
        ConfigError: there is no such command; suggests the nearest.
    """
    if name not in COMMANDS:
        raise ConfigError(f"unknown command {name!r}, {did_you_mean(name, COMMANDS)} `sr3 --help` lists all")
    return cast(CommandModule, import_module(f"cluster.commands.{COMMANDS[name].module}"))
