"""`sr3 doctor`: whether a machine, every node of a cluster, or a launch file is fit for the work."""

import os
from dataclasses import dataclass

from cluster.exits import DONE, FAILURE
from cluster.options.reading import CommandLine
from cluster.session import ray_session
from pipelines.settings.locations import Location
from pipelines.storage.uris import is_remote


@dataclass(frozen=True, kw_only=True)
class Options:
    """Check versions, GPUs, NCCL and gloo, shared memory, clock, weights, token and storage; print how to fix each
    problem."""

    data: Location | None = None
    """Folder or s3:// prefix that must be readable."""
    out: Location | None = None
    """Folder or s3:// prefix that must be writable."""
    launch: Location | None = None
    """Check a launch file instead, before anything starts: a file of `ray up`, or a folder of Kubernetes manifests."""
    address: str | None = None
    """Check every node of this cluster; default: RAY_ADDRESS, else this machine alone, without Ray."""


COMMAND_LINE = CommandLine(
    name="doctor",
    options=Options,
    essential=("--data", "--out", "--launch", "--address"),
    examples=(
        "sr3 doctor",
        "sr3 doctor --launch cluster/aws.yaml --data s3://bucket/data",
        "sr3 --address http://HOST:8265 doctor --data s3://bucket/data --out /shared/runs",
    ),
)


def run(options: Options) -> int:
    """`sr3 doctor`, `sr3 doctor --data s3://bucket/data --out /shared/runs`."""
    from cluster.health.doctor import describe, examine_cluster, examine_here, has_failed

    if options.launch:
        from cluster.health.launch_files import examine_launch

        places = (options.data, options.out)
        found = examine_launch(options.launch, tuple(place for place in places if place and is_remote(place)))
    elif options.address or os.environ.get("RAY_ADDRESS"):
        with ray_session(options.address):
            found = examine_cluster(options.data, options.out)
    else:
        found = examine_here(options.data, options.out)
    print(describe(found))
    return FAILURE if has_failed(found) else DONE
