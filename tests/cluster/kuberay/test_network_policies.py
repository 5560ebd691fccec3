"""Who may reach what in cluster/kuberay: its policies, on pods labelled as KubeRay and its Helm chart do."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.remote.schedule import Job, Kind, manifest
from tests.cluster.kuberay.network_policies import Pod, admits

ROOT = Path(__file__).resolve().parents[3]
KUBERAY = ROOT / "cluster" / "kuberay"
HOW_TO = ROOT / "docs" / "how-to" / "kubernetes.md"


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text(encoding="utf-8")))


BASE = documents(KUBERAY / "base.yaml")
POLICIES = [document for document in BASE if document["kind"] == "NetworkPolicy"]
(CLUSTER,) = documents(KUBERAY / "raycluster.yaml")


def ray_pod(name: str, node_type: str, template: dict[str, Any], namespace: str = "default") -> Pod:
    """A pod that KubeRay makes of a template: the labels of its own come on top (ray-operator's labelPod)."""
    own = {
        "ray.io/cluster": "sr3",
        "ray.io/node-type": node_type,
        "ray.io/is-ray-node": "yes",
        "app.kubernetes.io/name": "kuberay",
        "app.kubernetes.io/created-by": "kuberay-operator",
    }
    return Pod(name, {**own, **template.get("metadata", {}).get("labels", {})}, namespace)


def submitter(kind: Kind, cron: str | None) -> Pod:
    spec = manifest(Job(command=("report", "/r"), name="x", kind=kind, cron=cron))["spec"]
    if kind == "cronjob":
        return Pod("a CronJob's pod", spec["jobTemplate"]["spec"]["template"]["metadata"]["labels"])
    return Pod("a RayJob's submitter", spec["submitterPodTemplate"]["metadata"]["labels"])


HEAD = ray_pod("the head", "head", CLUSTER["spec"]["headGroupSpec"]["template"])
WORKER = ray_pod("a worker", "worker", CLUSTER["spec"]["workerGroupSpecs"][0]["template"])
(REDIS,) = (
    Pod("Redis", document["spec"]["template"]["metadata"]["labels"])
    for document in BASE
    if document["kind"] == "StatefulSet"
)
SUBMITTER = submitter("rayjob", None)
OPERATOR_LABELS = {
    "app.kubernetes.io/name": "kuberay-operator",  # the chart's name, as its deployment has it
    "app.kubernetes.io/instance": "kuberay-operator",
    "app.kubernetes.io/component": "kuberay-operator",
}
SOURCES = [
    HEAD,
    WORKER,
    ray_pod("KubeRay's Redis cleanup", "redis-cleanup", CLUSTER["spec"]["headGroupSpec"]["template"]),
    SUBMITTER,
    submitter("cronjob", "@daily"),
    REDIS,
    Pod("KubeRay's operator", OPERATOR_LABELS, "kuberay-system"),
    Pod("Prometheus", {"app.kubernetes.io/name": "prometheus"}, "monitoring"),
    ray_pod("another namespace's Ray pod", "head", {}, "other"),
    Pod("another namespace's pod with our labels", {**HEAD.labels}, "other"),
    Pod("one that calls itself the operator", OPERATOR_LABELS, "other"),
    Pod("any other pod beside ours"),
]
TARGETS = {
    "GCS 6379": (HEAD, 6379),
    "dashboard 8265": (HEAD, 8265),
    "metrics 8080": (HEAD, 8080),
    "a worker's ports": (WORKER, 10002),
    "Redis 6379": (REDIS, 6379),
    "a submitter": (SUBMITTER, 8000),
}


def table() -> str:
    """The documentation's table."""
    lines = ["| from, to | " + " | ".join(TARGETS) + " |", "|---" * (len(TARGETS) + 1) + "|"]
    for source in SOURCES:
        cells = ["yes" if admits(POLICIES, source, *target) else "–" for target in TARGETS.values()]
        lines.append("| " + " | ".join([source.name, *cells]) + " |")
    return "\n".join(lines)


def test_who_may_reach_what_is_what_the_documentation_says():
    assert table() in HOW_TO.read_text(encoding="utf-8"), f"docs/how-to/kubernetes.md should have\n\n{table()}"


@pytest.mark.parametrize("namespace", ["other", "monitoring"])
def test_nothing_of_another_namespace_reaches_redis_or_the_tables(namespace):
    for labels in ({}, HEAD.labels, OPERATOR_LABELS, SUBMITTER.labels):
        for target in (HEAD, REDIS):
            assert not admits(POLICIES, Pod("stranger", labels, namespace), target, 6379)


def test_what_the_policy_said_before_would_be_found():
    """`app.kubernetes.io/name: kuberay` is on Ray's pods of any namespace, and not on the operator."""
    selector = {"matchLabels": {"app.kubernetes.io/part-of": "sr3"}}
    wrong = {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app.kubernetes.io/name": "kuberay"}}}
    spec = {"podSelector": selector, "policyTypes": ["Ingress"], "ingress": [{"from": [wrong]}]}
    assert not admits([{"spec": spec}], Pod("operator", OPERATOR_LABELS, "kuberay-system"), HEAD, 8265)
    assert admits([{"spec": spec}], ray_pod("stranger", "head", {}, "other"), REDIS, 6379)


def test_each_pod_of_ours_is_guarded_by_a_policy():
    stranger = Pod("stranger", {}, "other")
    for target in (HEAD, WORKER, REDIS, SUBMITTER):
        assert not admits(POLICIES, stranger, target, 1), target.name


def test_a_queued_training_has_pods_that_the_policies_know():
    (job,) = documents(KUBERAY / "kueue" / "train.yaml")
    cluster = job["spec"]["rayClusterSpec"]
    head = ray_pod("head", "head", cluster["headGroupSpec"]["template"])
    submitting = Pod("submitter", job["spec"]["submitterPodTemplate"]["metadata"]["labels"])
    assert admits(POLICIES, submitting, head, 8265)
    assert not admits(POLICIES, submitting, head, 6379)
