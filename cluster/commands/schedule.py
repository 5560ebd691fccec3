"""`sr3 schedule`: the Kubernetes manifest that runs a command on a timer."""

import logging
import os
from dataclasses import asdict, dataclass

from cluster.catalog import COMMANDS, split_command
from cluster.commands import load
from cluster.exits import DONE
from cluster.options.reading import CommandLine, split_config
from cluster.remote.job_rules import check_path, check_paths, check_secrets
from cluster.remote.schedule import Job, Kind, as_yaml
from sr3core.config import did_you_mean
from sr3core.errors import ConfigError

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Options:
    """Print the Kubernetes manifest that runs a command: `sr3 schedule --name NAME --cron WHEN -- COMMAND …`."""

    name: str
    """Name of the Kubernetes object."""
    kind: Kind = "cronjob"
    """cronjob: plain Kubernetes, never two at once. raycronjob: KubeRay's, alpha. rayjob: once, now."""
    cron: str | None = None
    """When, as a crontab expression: "0 3 * * *". A rayjob has none."""
    time_zone: str = "Etc/UTC"
    """Time zone of the cron expression."""
    cluster: str = "sr3"
    """RayCluster to run on."""
    image: str = "REGISTRY/sr3:0.1.0-cpu"
    """Image of the pod that submits the command and follows it."""
    suspend: bool = False
    """Write the manifest switched off."""


COMMAND_LINE = CommandLine(
    name="schedule",
    options=Options,
    essential=("--name", "--kind", "--cron", "--time-zone", "--cluster", "--image", "--suspend"),
    examples=('sr3 schedule --name nightly --cron "0 3 * * *" -- retrain /shared/retrain.json',),
)


def read(arguments: list[str]) -> Job:
    """Read the options before `--`, and check the command behind it as for submission.

    Raises:
        ConfigError: an option is wrong, or the command would fail when its time comes.
    """
    index = arguments.index("--") if "--" in arguments else len(arguments)
    options = COMMAND_LINE.read(arguments[:index])
    command = arguments[index + 1 :]
    _check_command(command)
    return Job(command=tuple(command), **asdict(options))


def run(job: Job) -> int:
    """`sr3 schedule --name nightly --cron "0 3 * * *" -- search --run /shared/runs/faces --stage 64-256`."""
    print(as_yaml(job), end="")
    return DONE


def _check_command(command: list[str]) -> None:
    name, arguments = split_command(command) if command else ("", [])
    known = [name for name, entry in COMMANDS.items() if entry.runs_as_job]
    if name not in known:
        raise ConfigError(f"command: {' '.join(command) or 'empty'} cannot be scheduled, {did_you_mean(name, known)}")
    check_secrets(command)
    config, _ = split_config(arguments)
    if config is not None:
        check_path("--config", config)  # the pod reads it, from the disk that it shares with the nodes
        if not os.path.isfile(config):
            log.warning("note: the options of %s are not checked, since %s is not on this machine", name, config)
            return
    check_paths(load(name).read(arguments))
