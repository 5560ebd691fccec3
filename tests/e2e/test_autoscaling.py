"""Ray's own autoscaler with its fake nodes: jobs make it add nodes, run on them, and let them be removed."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.settings.presets import small_stage
from pipelines.settings.train import RunConfig
from sr3core.config import override, to_dict
from tests.commands import ROOT, run_sr3
from tests.preparing import some_photos
from tests.processes import wait_for
from tests.ray_head import free_port, ray_head

HEAD_ID = "f" * 51 + "00000"
"""That the fake provider expects of its head."""
NODE_TYPES = {"cpu": {"CPU": 1}, "trainer": {"CPU": 1, "trainer": 1}, "gpu": {"CPU": 1, "GPU": 1}}
"""Workers of the kinds that cluster/aws.yaml has; "trainer" stands for a GPU, and "gpu" says that it has one."""


def autoscaler_config(gcs_port: int) -> dict:
    types = {
        name: {
            "resources": {**resources, "object_store_memory": 100_000_000},
            "node_config": {},
            "min_workers": 0,
            "max_workers": 2,
        }
        for name, resources in NODE_TYPES.items()
    }
    head = {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0}
    provider = {
        "type": "external",
        "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
        "gcs_address": f"127.0.0.1:{gcs_port}",
        "head_node_id": HEAD_ID,
        "launch_multiple": True,
        "use_node_id_as_ip": True,
        "disable_node_updaters": True,
        "disable_launch_config_check": True,
    }
    commands = ("setup", "head_setup", "worker_setup", "initialization", "head_start_ray", "worker_start_ray")
    return {
        "cluster_name": "fake",
        "max_workers": 4,
        "idle_timeout_minutes": 0.5,
        "upscaling_speed": 10.0,
        "provider": provider,
        "auth": {},
        "available_node_types": {"ray.head.default": head, **types},
        "head_node_type": "ray.head.default",
        "file_mounts": {},
        "cluster_synced_files": [],
        "file_mounts_sync_continuously": False,
        "rsync_exclude": [],
        "rsync_filter": [],
        **{f"{name}_commands": [] for name in commands},
    }


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A head without CPUs whose autoscaler adds fake nodes, its GCS, and the log of what the autoscaler does."""
    folder, port = tmp_path_factory.mktemp("autoscaling"), free_port()
    (folder / "config.json").write_text(json.dumps(autoscaler_config(port)))
    variables = {
        "RAY_FAKE_CLUSTER": "1",
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD_ID,
    }
    options = ["--num-cpus=0", f"--autoscaling-config={folder / 'config.json'}"]
    with ray_head(folder, *options, gcs_port=port, **variables) as head:
        yield head, f"127.0.0.1:{port}", Path(f"/tmp/sr3-{port}/session_latest/logs/monitor.log")


def run(head, address: str, *arguments: str) -> str:
    done = run_sr3("--address", address, *arguments, environment=head.environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def events(log: Path) -> list[str]:
    """What the autoscaler did, according to its log."""
    return re.findall(r":event_summary:(.*)", log.read_text(encoding="utf-8"))


def has_shrunk(log: Path) -> bool:
    """Whether idle nodes were removed, and none is left."""
    sizes = [line for line in events(log) if line.startswith("Resized")]
    return any("(idle)" in line for line in events(log)) and sizes[-1] == "Resized to 0 CPUs."


def sum_of(log: Path, event: str, node_type: str) -> int:
    found = (re.fullmatch(rf"{event} (\d+) node\(?s?\)? of type {node_type}.*", line) for line in events(log))
    return sum(int(match[1]) for match in found if match)


@pytest.fixture(scope="module")
def prepared(cluster, photos, tmp_path_factory):
    head, _, _ = cluster
    folder = tmp_path_factory.mktemp("data")
    source = some_photos(photos, folder / "photos", 200)
    arguments = ["--source", str(source), "--out", str(folder / "shards"), "--stages", "8-16,8-32"]
    arguments += ["--samples-per-shard", "4", "--num-workers", "2", "--validation-fraction", "0.2"]
    run(head, head.address, "prepare", *arguments)
    return folder / "shards"


def test_a_preparation_makes_its_nodes_come_and_they_go_when_idle(cluster, prepared):
    _, _, log = cluster
    manifest = json.loads((prepared / "8-16" / "manifest.json").read_text())
    assert sum(shard["num_samples"] for shards in manifest["splits"].values() for shard in shards) == 200
    assert sum_of(log, "Adding", "cpu") + sum_of(log, "Adding", "trainer") >= 1, events(log)
    wait_for(lambda: has_shrunk(log))


@pytest.mark.slow
def test_stages_wait_aloud_for_the_nodes_that_they_need(cluster, prepared, tmp_path):
    head, gcs, log = cluster
    stages = [
        override(
            small_stage(8, size, base_channels=8, num_steps=6, num_workers=1),
            num_lanes=2,
            log_every=3,
            placement__resources={"trainer": 1.0},
        )
        for size in (16, 32)
    ]
    (tmp_path / "run.json").write_text(json.dumps(to_dict(RunConfig(name="scaled", stages=tuple(stages)))))
    wait_for(lambda: has_shrunk(log))
    # As a driver that joins, not as a job: fake nodes share one machine, and one that goes takes a job's folder along.
    arguments = ["--config", str(tmp_path / "run.json"), "--data", str(prepared), "--out", str(tmp_path / "run")]
    output = run(head, gcs, "train", *arguments)
    assert re.search(r"8-\d\d: waits for nodes: it needs .*1 trainer \(the cluster has 0\)", output), output
    assert "8-16: step 6, done" in output
    assert "8-32: step 6, done" in output
    assert sum_of(log, "Adding", "trainer") >= 1, events(log)


FIND_ACTORS = """
import sys, ray
from pipelines.runtime.actor_resources import find_actor_resources
ray.init(sys.argv[1], log_to_driver=False)
print(find_actor_resources(None, None, prefers_gpu=True), flush=True)
"""


@pytest.mark.slow
def test_a_copy_of_the_networks_waits_aloud_for_a_gpu_that_no_node_has_yet(cluster):
    head, gcs, log = cluster
    command = [sys.executable, "-c", FIND_ACTORS, gcs]
    found = subprocess.run(command, env=head.environment, capture_output=True, text=True, cwd=ROOT)
    assert found.stdout.startswith("waits for nodes: it needs 1 GPU (the cluster has 0), 0 s of at most 1800 s"), found
    assert "--inference.gpus 0 computes on CPUs" in found.stdout
    assert found.stdout.splitlines()[-1] == "ActorResources(num_actors=1, cpus=1, gpus=1.0)"
    assert sum_of(log, "Adding", "gpu") >= 1, events(log)
