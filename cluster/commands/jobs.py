"""`sr3 jobs`: the jobs of a cluster."""

from dataclasses import dataclass

from cluster.exits import DONE
from cluster.options.declared import OnJobServer
from cluster.options.reading import CommandLine
from cluster.remote.addresses import check_job_server


@dataclass(frozen=True, kw_only=True)
class Options(OnJobServer):
    """List the jobs of a cluster, newest first."""


COMMAND_LINE = CommandLine(
    name="jobs",
    options=Options,
    essential=("--address",),
    examples=("sr3 jobs", "sr3 jobs --address http://HOST:8265"),
)


def run(options: Options) -> int:
    """`sr3 jobs`."""
    address = check_job_server(options.address)
    from cluster.remote.jobs import connect, describe_jobs

    print(describe_jobs(connect(address).list_jobs()))
    return DONE
