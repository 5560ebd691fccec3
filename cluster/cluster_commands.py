"""What the `sr3` commands about a cluster do: jobs, logs, stop, doctor, schedule."""

import os
from dataclasses import asdict, dataclass
from typing import Annotated, Literal

import tyro

from cluster.exits import FAILURE
from cluster.options import parse
from cluster.remote.addresses import check_job_server
from cluster.session import ray_session


@dataclass(frozen=True, kw_only=True)
class JobsOptions:
    """List the jobs of a cluster, the newest first."""

    address: str | None = None
    """Job server; default: RAY_ADDRESS, else http://127.0.0.1:8265."""


def jobs(arguments: list[str]) -> int:
    """`sr3 jobs`."""
    options = parse(JobsOptions, "jobs", arguments)
    address = check_job_server(options.address)
    from cluster.remote.jobs import connect, describe_jobs

    print(describe_jobs(connect(address).list_jobs()))
    return 0


@dataclass(frozen=True, kw_only=True)
class LogsOptions:
    """Print a job's log, or follow it to its end and return the job's exit status."""

    job: Annotated[str, tyro.conf.Positional]
    """Name of the job, as `sr3 jobs` lists it."""
    follow: bool = False
    """Go on until the job ends. Ctrl-C leaves the job alone."""
    address: str | None = None
    """Job server; default: RAY_ADDRESS, else http://127.0.0.1:8265."""


def logs(arguments: list[str]) -> int:
    """`sr3 logs JOB`, `sr3 logs JOB --follow`."""
    options = parse(LogsOptions, "logs", arguments)
    address = check_job_server(options.address)
    from cluster.remote.jobs import Follower, connect, details_of, exit_status

    client = connect(address)
    details_of(client, options.job)
    if not options.follow:
        print(client.get_job_logs(options.job), end="")
        return 0
    return exit_status(Follower(client, options.job).to_end())


@dataclass(frozen=True, kw_only=True)
class StopOptions:
    """Stop a job, and wait until it has ended; the same command submitted again goes on from there."""

    job: Annotated[str, tyro.conf.Positional]
    """Name of the job, as `sr3 jobs` lists it."""
    address: str | None = None
    """Job server; default: RAY_ADDRESS, else http://127.0.0.1:8265."""


def stop(arguments: list[str]) -> int:
    """`sr3 stop JOB`."""
    options = parse(StopOptions, "stop", arguments)
    address = check_job_server(options.address)
    from cluster.remote.jobs import connect, stop_job

    client = connect(address)
    print(f"{options.job}: {stop_job(client, options.job).status.value.lower()}")
    return 0


@dataclass(frozen=True, kw_only=True)
class DoctorOptions:
    """Check versions, GPUs, NCCL and gloo, shared memory, clock, weights, token and storage; say what to mend."""

    data: str | None = None
    """Folder or s3:// prefix to read from."""
    out: str | None = None
    """Folder or s3:// prefix to write to."""
    address: str | None = None
    """Check every node of this cluster; default: RAY_ADDRESS, else this machine alone, without Ray."""


def doctor(arguments: list[str]) -> int:
    """`sr3 doctor`, `sr3 doctor --data s3://bucket/data --out /shared/runs`."""
    options = parse(DoctorOptions, "doctor", arguments)
    from cluster.health.doctor import describe, examine_cluster, examine_here, has_failed

    if options.address or os.environ.get("RAY_ADDRESS"):
        with ray_session(options.address):
            found = examine_cluster(options.data, options.out)
    else:
        found = examine_here(options.data, options.out)
    print(describe(found))
    return FAILURE if has_failed(found) else 0


@dataclass(frozen=True, kw_only=True)
class ScheduleOptions:
    """Print the Kubernetes manifest that runs a command: `sr3 schedule --name NAME --cron WHEN -- COMMAND …`."""

    name: str
    """Of the Kubernetes object."""
    kind: Literal["cronjob", "raycronjob", "rayjob"] = "cronjob"
    """cronjob: plain Kubernetes, never two at once. raycronjob: KubeRay's, alpha. rayjob: once, now."""
    cron: str | None = None
    """When, as crontab says it: "0 3 * * *". A rayjob has none."""
    time_zone: str = "Etc/UTC"
    """Of the cron expression."""
    cluster: str = "sr3"
    """RayCluster that it runs on."""
    image: str = "REGISTRY/sr3:0.1.0-cpu"
    """Image of the pod that submits the command and follows it."""
    suspend: bool = False
    """Write it switched off."""


def schedule(arguments: list[str]) -> int:
    """`sr3 schedule --name nightly --cron "0 3 * * *" -- search --run /shared/runs/faces --stage 64-256`."""
    index = arguments.index("--") if "--" in arguments else len(arguments)
    options = parse(ScheduleOptions, "schedule", arguments[:index])
    from cluster.remote.schedule import Job, as_yaml

    print(as_yaml(Job(command=tuple(arguments[index + 1 :]), **asdict(options))), end="")
    return 0
