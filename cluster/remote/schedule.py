"""Kubernetes manifests that run an `sr3` command on a RayCluster, once or on a timer: cluster/kuberay/jobs."""

import re
import shlex
from dataclasses import dataclass
from typing import Any, Literal

from sr3core.errors import ConfigError

Kind = Literal["cronjob", "raycronjob", "rayjob"]

CRON = re.compile(r"@(hourly|daily|weekly|monthly|yearly)|(\S+\s+){4}\S+")
NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,45}[a-z0-9])?")
TOKEN_SECRET = "sr3-token"
"""Kubernetes secret whose key auth_token holds Ray's token, for the cluster and its clients."""
SHARED_CLAIM = "sr3-shared"
"""Volume claim of the disk that all nodes mount at /shared."""
LABELS = {"app.kubernetes.io/part-of": "sr3"}
SUBMITTER_LABELS = {**LABELS, "app.kubernetes.io/component": "submitter"}
"""What the network policies of cluster/kuberay/base.yaml let reach the dashboard."""
KEPT_SECONDS = 7 * 86400
"""How long a finished job and its submitter's log can be looked at."""
DASHBOARD_PORT = 8265
USER = 1000
"""The image's user."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """A command, and when and where it runs."""

    command: tuple[str, ...]
    """The `sr3` command with its arguments, already checked."""
    name: str
    """Name of the Kubernetes object: lower-case letters, digits and dashes."""
    kind: Kind = "cronjob"
    """cronjob: plain Kubernetes, never two at once. raycronjob: KubeRay's, alpha. rayjob: once."""
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

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise ConfigError(
                f"name: {self.name!r} is not a Kubernetes name; use at most 47 lower-case letters, digits and dashes"
            )
        if (self.cron is None) != (self.kind == "rayjob"):
            raise ConfigError('cron: a cronjob or raycronjob needs one, such as "0 3 * * *"; a rayjob takes none')
        if self.cron is not None and not CRON.fullmatch(self.cron):
            raise ConfigError(
                f'cron: {self.cron!r} is not a cron expression; it has five fields: "0 3 * * *" is 3:00 every day'
            )


def manifest(job: Job) -> dict[str, Any]:
    """The Kubernetes object of a job."""
    if job.kind == "rayjob":
        return {**_head("ray.io/v1", "RayJob", job), "spec": ray_job_spec(job)}
    if job.kind == "raycronjob":
        timing = {"schedule": job.cron, "timeZone": job.time_zone, "suspend": job.suspend}
        return {**_head("ray.io/v1", "RayCronJob", job), "spec": {**timing, "jobTemplate": ray_job_spec(job)}}
    return {**_head("batch/v1", "CronJob", job), "spec": cron_job_spec(job)}


def ray_job_spec(job: Job) -> dict[str, Any]:
    """Submit to the running cluster and follow: KubeRay's own submitter, with Ray's token."""
    return {
        "clusterSelector": {"ray.io/cluster": job.cluster},
        "entrypoint": shlex.join(["python", "-m", "cluster", *job.command]),
        "submissionMode": "K8sJobMode",
        "backoffLimit": 0,
        "shutdownAfterJobFinishes": False,
        "deletionStrategy": {"deletionRules": _deletion_rules()},
        "submitterPodTemplate": pod_template(job, "ray-job-submitter", None),
    }


def _deletion_rules() -> list[dict[str, Any]]:
    """KubeRay deletes the job, but not the cluster that others use, some time after any ending; by default it keeps all
    jobs for ever. ttlSecondsAfterFinished would want shutdownAfterJobFinishes."""
    endings = ({"jobStatus": "SUCCEEDED"}, {"jobStatus": "FAILED"}, {"jobDeploymentStatus": "Failed"})
    return [{"condition": {**ending, "ttlSeconds": KEPT_SECONDS}, "policy": "DeleteSelf"} for ending in endings]


def cron_job_spec(job: Job) -> dict[str, Any]:
    """`sr3 --address` in a small pod that succeeds if the job does; never two runs at once."""
    address = f"http://{job.cluster}-head-svc:{DASHBOARD_PORT}"
    return {
        "schedule": job.cron,
        "timeZone": job.time_zone,
        "suspend": job.suspend,
        "concurrencyPolicy": "Forbid",
        "startingDeadlineSeconds": 3600,
        "successfulJobsHistoryLimit": 3,
        "failedJobsHistoryLimit": 5,
        "jobTemplate": {
            "spec": {
                "backoffLimit": 0,
                "ttlSecondsAfterFinished": KEPT_SECONDS,
                "template": pod_template(job, "sr3", ["sr3", "--address", address, *job.command]),
            }
        },
    }


def pod_template(job: Job, name: str, command: list[str] | None) -> dict[str, Any]:
    """A pod that only talks to the job server: no rights, no writable disk but /tmp, the token by reference.

    It mounts the shared disk, so that it can read a --config file there.
    """
    container = {
        "name": name,
        "image": job.image,
        **({"command": command} if command else {}),
        "env": [
            {"name": "RAY_AUTH_MODE", "value": "token"},
            {
                "name": "RAY_AUTH_TOKEN",
                "valueFrom": {"secretKeyRef": {"name": TOKEN_SECRET, "key": "auth_token"}},
            },
            {"name": "HOME", "value": "/tmp"},
        ],
        "resources": {"requests": {"cpu": "250m", "memory": "1Gi"}, "limits": {"cpu": "1", "memory": "2Gi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "tmp", "mountPath": "/tmp"},
            {"name": "shared", "mountPath": "/shared", "readOnly": True},
        ],
    }
    spec = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [
            {"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}},
            {"name": "shared", "persistentVolumeClaim": {"claimName": SHARED_CLAIM, "readOnly": True}},
        ],
    }
    return {"metadata": {"labels": SUBMITTER_LABELS}, "spec": spec}


def _head(api_version: str, kind: str, job: Job) -> dict[str, Any]:
    labels = {**LABELS, "app.kubernetes.io/component": job.command[0]}
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": job.name, "labels": labels}}


def as_yaml(job: Job) -> str:
    """The manifest as a file, with the command that made it in the first line."""
    import yaml

    return f"# {as_command(job)}\n" + yaml.safe_dump(manifest(job), sort_keys=False, width=120)


def as_command(job: Job) -> str:
    """The `sr3 schedule` command that writes this job's manifest."""
    options = ["--name", job.name, "--kind", job.kind]
    if job.cron is not None:
        options += ["--cron", job.cron, "--time-zone", job.time_zone]
    options += ["--cluster", job.cluster, "--image", job.image, *(["--suspend"] if job.suspend else [])]
    return shlex.join(["sr3", "schedule", *options, "--", *job.command])
