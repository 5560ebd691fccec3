"""The Kubernetes manifests against KubeRay's own CRDs, and against the pod schema that is inside them."""

import copy
import functools
import json
import shlex
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from cluster.cli import main
from cluster.commands import load
from cluster.remote.schedule import Job, as_yaml, manifest
from sr3core.errors import ConfigError

ROOT = Path(__file__).resolve().parents[3]
KUBERAY = ROOT / "cluster" / "kuberay"
SCHEMAS = ROOT / "tests" / "cluster" / "kuberay_crds"
JOBS = sorted((KUBERAY / "jobs").glob("*.yaml"))
KUBERNETES = "1.33.0"
"""The version whose own schemas the core kinds are checked against; the oldest one that is still maintained."""
KUEUE_KINDS = {"ResourceFlavor", "ClusterQueue", "LocalQueue"}
"""Kinds of which no package has the schema; tests/cluster/kuberay/test_kueue.py looks at them."""


@functools.cache
def crd(kind: str) -> dict[str, Any]:
    """The v1 schema of a kind, which refuses unknown fields, as the API server with --validate=strict does."""
    return strict(json.loads((SCHEMAS / f"{kind}.json").read_text()))


def strict(schema: Any) -> Any:
    """Close every object whose properties are listed."""
    if isinstance(schema, list):
        return [strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: strict(value) for key, value in schema.items()}
    listed = isinstance(closed.get("properties"), dict) and closed.get("type") == "object"
    if listed and "additionalProperties" not in closed and not closed.get("x-kubernetes-preserve-unknown-fields"):
        closed["additionalProperties"] = False
    return closed


@functools.cache
def validator(kind: str) -> jsonschema.Draft7Validator:
    return jsonschema.Draft7Validator(crd(kind))


@functools.cache
def pod_validator() -> jsonschema.Draft7Validator:
    return jsonschema.Draft7Validator(pod_schema())


def pod_schema() -> dict[str, Any]:
    return crd("RayCluster")["properties"]["spec"]["properties"]["headGroupSpec"]["properties"]["template"]


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text(encoding="utf-8")))


def pod_templates(node: Any) -> list[dict[str, Any]]:
    """Every pod template in a manifest: what has a spec with containers."""
    if isinstance(node, list):
        return [found for item in node for found in pod_templates(item)]
    if not isinstance(node, dict):
        return []
    own = [node] if isinstance(node.get("spec"), dict) and "containers" in node["spec"] else []
    return own + [found for value in node.values() for found in pod_templates(value)]


EVERYTHING = [document for path in sorted(KUBERAY.rglob("*.yaml")) for document in documents(path)]
NAMES = [f"{document['kind']}-{document['metadata']['name']}" for document in EVERYTHING]


@pytest.mark.parametrize("document", EVERYTHING, ids=NAMES)
def test_each_manifest_fits_its_schema(document):
    kind = document["kind"]
    if kind.startswith("Ray"):
        validator(kind).validate(document)
    elif kind not in KUEUE_KINDS:
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
    for template in pod_templates(document):
        pod_validator().validate(template)


def test_the_schema_would_find_a_mistake():
    (cluster,) = documents(KUBERAY / "raycluster.yaml")
    wrong = copy.deepcopy(cluster)
    wrong["spec"]["workerGroupSpecs"][0]["maxReplica"] = 3
    with pytest.raises(jsonschema.ValidationError, match="maxReplica"):
        validator("RayCluster").validate(wrong)
    template = pod_templates(manifest(Job(command=("report", "/r"), name="x", kind="cronjob", cron="@daily")))[0]
    template["spec"]["containers"][0]["imagePullPolicies"] = "Always"
    with pytest.raises(jsonschema.ValidationError, match="imagePullPolicies"):
        pod_validator().validate(template)


@pytest.mark.parametrize(
    ("kind", "spec", "word"),
    [
        ("NetworkPolicy", {"podSelector": {}, "ingres": []}, "ingres"),
        ("PersistentVolumeClaim", {"accessModes": "ReadWriteMany"}, "ReadWriteMany"),
    ],
)
def test_kubernetes_own_schemas_would_find_a_mistake(kind, spec, word):
    version = "networking.k8s.io/v1" if kind == "NetworkPolicy" else "v1"
    wrong = {"apiVersion": version, "kind": kind, "metadata": {"name": "x"}, "spec": spec}
    with pytest.raises(kubernetes_validate.ValidationError, match=word):
        kubernetes_validate.validate(wrong, KUBERNETES, strict=True)


@pytest.mark.parametrize("document", EVERYTHING, ids=NAMES)
def test_every_pod_is_non_root_with_a_read_only_root_and_limits(document):
    for template in pod_templates(document):
        pod = template["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] != 0
        assert template["metadata"]["labels"]["app.kubernetes.io/part-of"] == "sr3", "else the network policies bar it"
        mounted = {volume["name"] for volume in pod["volumes"]}
        for container in [*pod["containers"], *pod.get("initContainers", ())]:
            security = container["securityContext"]
            assert security["readOnlyRootFilesystem"] is True
            assert security["allowPrivilegeEscalation"] is False
            assert security["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["requests"].keys() >= {"cpu", "memory"}
            assert container["resources"]["limits"].keys() >= {"cpu", "memory"}
            assert ":" in container["image"]
            assert not container["image"].endswith(":latest")
            claimed = {claim["metadata"]["name"] for claim in document["spec"].get("volumeClaimTemplates", ())}
            assert {mount["name"] for mount in container["volumeMounts"]} <= mounted | claimed


def test_the_cluster_grows_survives_its_head_and_asks_for_a_token():
    import ray

    (cluster,) = documents(KUBERAY / "raycluster.yaml")
    spec = cluster["spec"]
    assert spec["rayVersion"] == ray.__version__
    assert spec["enableInTreeAutoscaling"] is True
    assert spec["authOptions"] == {"mode": "token", "secretName": "sr3-token"}
    assert "secretKeyRef" in spec["gcsFaultToleranceOptions"]["redisPassword"]["valueFrom"]
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert all(group["minReplicas"] == 0 < group["maxReplicas"] for group in spec["workerGroupSpecs"])
    for group in spec["workerGroupSpecs"]:
        (container,) = group["template"]["spec"]["containers"]
        memory = int(container["resources"]["limits"]["memory"].removesuffix("Gi"))
        volumes = {volume["name"]: volume for volume in group["template"]["spec"]["volumes"]}
        shared = int(volumes["shared-memory"]["emptyDir"]["sizeLimit"].removesuffix("Gi"))
        assert shared >= 0.3 * memory, "Ray's object store is 30% of the memory, and must fit into /dev/shm"


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.stem)
def test_a_shipped_job_is_what_its_command_writes(path, capsys):
    first, _, _ = path.read_text().partition("\n")
    assert main(shlex.split(first.removeprefix("# "))[1:]) == 0
    assert capsys.readouterr().out == path.read_text()


@pytest.mark.parametrize("document", EVERYTHING, ids=NAMES)
def test_no_finished_job_stays_for_ever(document):
    """KubeRay: rules of deletion go without shutdownAfterJobFinishes, a time to live goes only with it."""
    if document["kind"] not in ("RayJob", "RayCronJob", "CronJob"):
        return
    spec = document["spec"].get("jobTemplate", document["spec"])
    if document["kind"] == "CronJob":
        assert spec["spec"]["ttlSecondsAfterFinished"] > 0
    elif spec["shutdownAfterJobFinishes"]:
        assert spec["ttlSecondsAfterFinished"] >= 0
        assert "deletionStrategy" not in spec
    else:
        assert "ttlSecondsAfterFinished" not in spec
        rules = spec["deletionStrategy"]["deletionRules"]
        assert {rule["policy"] for rule in rules} == {"DeleteSelf"}, "the cluster is others' too"
        ended = [{**rule["condition"], "ttlSeconds": 0} for rule in rules]
        assert {"jobStatus": "SUCCEEDED", "ttlSeconds": 0} in ended
        assert {"jobStatus": "FAILED", "ttlSeconds": 0} in ended


@pytest.mark.parametrize("document", EVERYTHING, ids=NAMES)
def test_rays_logs_survive_their_pod(document):
    for template in pod_templates(document):
        pod = template["spec"]
        if any(container["name"] in ("ray-head", "ray-worker") for container in pod["containers"]):
            (logs,) = pod["initContainers"]
            assert logs["restartPolicy"] == "Always", "a sidecar: it ends after Ray"
            assert (ROOT / "cluster" / "docker" / Path(logs["command"][1]).name).is_file()


def test_there_is_a_job_for_each_step_and_the_alpha_kind_is_off():
    steps = {
        document["metadata"]["labels"]["app.kubernetes.io/component"] for path in JOBS for document in documents(path)
    }
    assert steps == {"prepare", "train", "search", "upscale", "evaluate", "report", "doctor", "retrain"}
    for path in JOBS:
        (document,) = documents(path)
        assert document["spec"].get("suspend", False) is (document["kind"] == "RayCronJob")
        if document["kind"] == "CronJob":
            assert document["spec"]["concurrencyPolicy"] == "Forbid"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cron": "every night"}, "five fields"),
        ({"cron": None}, "cron"),
        ({"kind": "rayjob"}, "cron"),
        ({"name": "Nightly_Run"}, "not a Kubernetes name"),
    ],
)
def test_what_would_fail_at_night_is_refused_now(changes, message):
    valid = {"command": ("report", "/runs/mine"), "name": "nightly", "kind": "cronjob", "cron": "0 3 * * *"}
    with pytest.raises(ConfigError, match=message):
        Job(**{**valid, **changes})


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("serch", "did you mean 'search'"),
        ("", "empty cannot be scheduled"),
        ("jobs", "cannot be scheduled"),
        ("report runs/mine", "all nodes share"),
        ("study results /studies/a studies/b", "all nodes share"),
        ("evaluate --run /r --photos /p --labels labels.csv", "--labels: labels.csv is relative"),
        ("prepare --config prepare.json", "--config: prepare.json is relative"),
    ],
)
def test_a_command_that_would_fail_at_night_is_refused_now(command, message):
    with pytest.raises(ConfigError, match=message):
        scheduled(*command.split())


def test_a_config_file_on_the_shared_disk_is_left_to_the_pod(caplog):
    job = scheduled("prepare", "--config", "/shared/prepare.json")
    assert job.command == ("prepare", "--config", "/shared/prepare.json")
    assert "are not checked, since /shared/prepare.json is not on this machine" in caplog.text


def scheduled(*command: str) -> Job:
    return load("schedule").read(["--name", "nightly", "--cron", "0 3 * * *", "--", *command])


def test_a_secret_never_reaches_a_manifest(monkeypatch):
    monkeypatch.setenv("RAY_AUTH_TOKEN", "do-not-print-me")
    with pytest.raises(ConfigError, match="RAY_AUTH_TOKEN"):
        scheduled("report", "/do-not-print-me")
    assert "do-not-print-me" not in as_yaml(Job(command=("report", "/r"), name="x", kind="rayjob"))
