"""`sr3 stop`: end a job."""

from dataclasses import dataclass
from typing import Annotated

import tyro

from cluster.exits import DONE
from cluster.options.declared import OnJobServer
from cluster.options.reading import CommandLine
from cluster.remote.addresses import check_job_server


@dataclass(frozen=True, kw_only=True)
class Options(OnJobServer):
    """Stop a job and wait until it has ended; submit the same command again to resume it."""

    job: Annotated[str, tyro.conf.Positional]
    """Name of the job, as `sr3 jobs` lists it."""


COMMAND_LINE = CommandLine(
    name="stop",
    options=Options,
    essential=("JOB", "--address"),
    examples=("sr3 stop sr3-train-20261122-100419-7baa",),
)


def run(options: Options) -> int:
    """`sr3 stop JOB`."""
    address = check_job_server(options.address)
    from cluster.remote.jobs import connect, stop_job

    client = connect(address)
    print(f"{options.job}: {stop_job(client, options.job).status.value.lower()}")
    return DONE
