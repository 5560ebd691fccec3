"""`sr3 logs`: what a job prints."""

from dataclasses import dataclass
from typing import Annotated

import tyro

from cluster.exits import DONE
from cluster.options.declared import OnJobServer
from cluster.options.reading import CommandLine
from cluster.remote.addresses import check_job_server


@dataclass(frozen=True, kw_only=True)
class Options(OnJobServer):
    """Print a job's log, or follow it to its end and return the job's exit status."""

    job: Annotated[str, tyro.conf.Positional]
    """Name of the job, as `sr3 jobs` lists it."""
    follow: bool = False
    """Keep printing until the job ends. Ctrl-C does not stop the job."""


COMMAND_LINE = CommandLine(
    name="logs",
    options=Options,
    essential=("JOB", "--follow", "--address"),
    examples=("sr3 logs sr3-train-20261122-100419-7baa --follow",),
)


def run(options: Options) -> int:
    """`sr3 logs JOB`, `sr3 logs JOB --follow`."""
    address = check_job_server(options.address)
    from cluster.remote.jobs import Follower, connect, details_of, exit_status

    client = connect(address)
    details_of(client, options.job)
    if options.follow:
        return exit_status(Follower(client, options.job).to_end())
    print(client.get_job_logs(options.job), end="")
    return DONE
