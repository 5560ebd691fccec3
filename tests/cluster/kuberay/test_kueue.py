"""cluster/kuberay/kueue: what Kueue asks of a RayJob, a quota that holds it, pods like the shared cluster's."""

from pathlib import Path
from typing import Any

import yaml

KUBERAY = Path(__file__).resolve().parents[3] / "cluster" / "kuberay"
UNITS = {"m": 1e-3, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((KUBERAY / name).read_text(encoding="utf-8")))


def quantity(text: str | int) -> float:
    unit = next((unit for unit in UNITS if str(text).endswith(unit)), "")
    return float(str(text).removesuffix(unit)) * UNITS.get(unit, 1)


(JOB,) = documents("kueue/train.yaml")
FLAVOR, QUEUE, LOCAL = documents("kueue/queues.yaml")
(SHARED,) = documents("raycluster.yaml")


def test_the_names_lead_from_the_job_to_the_quota():
    assert JOB["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == LOCAL["metadata"]["name"]
    assert LOCAL["spec"]["clusterQueue"] == QUEUE["metadata"]["name"]
    (group,) = QUEUE["spec"]["resourceGroups"]
    (flavor,) = group["flavors"]
    assert flavor["name"] == FLAVOR["metadata"]["name"]
    assert [entry["name"] for entry in flavor["resources"]] == group["coveredResources"]


def test_kueue_takes_the_job():
    """Its documentation: no cluster that exists, no autoscaler, shut down at the end, at most seven worker groups."""
    spec = JOB["spec"]
    assert spec["suspend"] is True
    assert spec["shutdownAfterJobFinishes"] is True
    assert "clusterSelector" not in spec
    assert spec["rayClusterSpec"]["enableInTreeAutoscaling"] is False
    assert len(spec["rayClusterSpec"]["workerGroupSpecs"]) <= 7
    for group in spec["rayClusterSpec"]["workerGroupSpecs"]:
        assert group["replicas"] == group["minReplicas"] == group["maxReplicas"] > 0


def test_the_quota_holds_the_whole_job_and_says_how_much_it_takes():
    cluster = JOB["spec"]["rayClusterSpec"]
    templates = [cluster["headGroupSpec"]["template"], JOB["spec"]["submitterPodTemplate"]]
    for group in cluster["workerGroupSpecs"]:
        templates += [group["template"]] * group["replicas"]
    wanted: dict[str, float] = {}
    for template in templates:
        pod = template["spec"]
        for container in [*pod["containers"], *pod.get("initContainers", ())]:
            for name, amount in container["resources"]["requests"].items():
                wanted[name] = wanted.get(name, 0) + quantity(amount)
    quotas = {
        entry["name"]: quantity(entry["nominalQuota"])
        for entry in QUEUE["spec"]["resourceGroups"][0]["flavors"][0]["resources"]
    }
    assert wanted.keys() == quotas.keys(), "Kueue admits nothing that asks for a resource without a quota"
    assert all(wanted[name] <= quotas[name] for name in wanted), wanted
    told = f"{-(-wanted['cpu'] // 1):.0f} CPUs, {-(-wanted['memory'] // 2**30):.0f} GiB and 8 GPUs"
    assert told in (KUBERAY / "kueue" / "queues.yaml").read_text(encoding="utf-8"), told


def test_its_pods_are_those_of_the_shared_cluster():
    shared, queued = SHARED["spec"], JOB["spec"]["rayClusterSpec"]
    assert queued["rayVersion"] == shared["rayVersion"]
    head, gpu = queued["headGroupSpec"], queued["workerGroupSpecs"][0]
    assert head["rayStartParams"] == shared["headGroupSpec"]["rayStartParams"]
    account = {"automountServiceAccountToken": False}  # without the autoscaler the head calls no Kubernetes
    assert head["template"]["spec"] == {**shared["headGroupSpec"]["template"]["spec"], **account}
    assert gpu["template"] == shared["workerGroupSpecs"][1]["template"]
