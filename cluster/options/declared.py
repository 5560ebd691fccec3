"""What several commands have in common in their options."""

from dataclasses import dataclass
from typing import Annotated

import tyro

from pipelines.settings.locations import Location

Flat = tyro.conf.arg(name="")
"""Marks a nested configuration whose options carry no prefix."""


@dataclass(frozen=True, kw_only=True)
class OnRay:
    """Options of a command that computes on a Ray cluster."""

    address: str | None = None
    """Cluster to run on: http://HOST:8265 submits a job, HOST:PORT or auto joins; default: RAY_ADDRESS, else a local
    Ray."""
    notify: str | None = None
    """Web hook that is told when the command ends or fails: a JSON object by POST, with a text; default: SR3_NOTIFY."""


@dataclass(frozen=True, kw_only=True)
class DryRun:
    """Options of a command that can be rehearsed."""

    dry_run: bool = False
    """Check everything, print what would be done, and stop."""


@dataclass(frozen=True, kw_only=True)
class Writing:
    """Options of a command that writes into a folder, where only one may be at work."""

    wait: bool = False
    """If another command is at work in the same folder, wait until it has ended instead of giving up."""


@dataclass(frozen=True, kw_only=True)
class Printable(DryRun):
    """Options of a command with a configuration."""

    print_config: bool = False
    """Print the complete configuration as JSON and stop."""


@dataclass(frozen=True, kw_only=True)
class Configured(Printable):
    """Options of a command whose configuration can come from a file."""

    config_file: Annotated[Location | None, tyro.conf.arg(name="config")] = None
    """JSON file of defaults, as --print-config writes it; options on the command line override it."""


@dataclass(frozen=True, kw_only=True)
class OnJobServer:
    """Options of a command about the jobs of a cluster."""

    address: str | None = None
    """Job server, such as http://HOST:8265; default: RAY_ADDRESS, else http://127.0.0.1:8265."""
