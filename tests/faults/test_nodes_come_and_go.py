"""A node dies while a cluster of several (Ray's own test cluster) trains; an elastic run goes on without it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from pipelines.runs.run_folder import Run, create_run, data_fingerprints, read_metrics
from pipelines.settings.presets import small_stage
from pipelines.settings.train import RunConfig
from sr3core.config import override
from tests.commands import ROOT
from tests.preparing import prepared

NUM_STEPS = 60

CLUSTER = """
# argv: run folder, "replace" or "shrink". A head without CPUs and two nodes of one; one of them is lost at step 20.
import json, sys, threading, time, ray
from ray.cluster_utils import Cluster
from pipelines.training.checkpoints import steps_done
from pipelines.runs.run_folder import open_run
from pipelines.training.parallel_stages import train_run
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": 80_000_000})
nodes = [cluster.add_node(num_cpus=1, object_store_memory=80_000_000) for _ in range(2)]
ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
run = open_run(sys.argv[1])
results = []
thread = threading.Thread(target=lambda: results.extend(train_run(run)))
thread.start()
while thread.is_alive() and steps_done(run.stages[0]) < 20:
    time.sleep(0.1)
lost_at = steps_done(run.stages[0])
cluster.remove_node(nodes[1], allow_graceful=False)  # SIGKILL to its raylet, and its workers with it
if sys.argv[2] == "replace":
    cluster.add_node(num_cpus=1, object_store_memory=80_000_000)
thread.join(250)
answer = {"lost_at": lost_at, "errors": [r.error for r in results], "steps": [r.step for r in results]}
print("ANSWER", json.dumps(answer), flush=True)
ray.shutdown()
cluster.shutdown()
"""

HEALTH = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "10",
}


@pytest.fixture(scope="module")
def data(tmp_path_factory, photos, ray_session):
    return prepared(photos, tmp_path_factory.mktemp("nodes"), 60, "8-16")


def start(path: Path, data: str, **changes) -> Run:
    stage = override(
        small_stage(8, 16, base_channels=8, num_steps=NUM_STEPS, num_workers=2),
        **{"checkpoint_every": 10, "log_every": 5, "placement__cpus_per_worker": 1.0, **changes},
    )
    config = RunConfig(name="nodes", stages=(stage,))
    return create_run(path, config, data, data_fingerprints(data, config), fresh=False)


def on_a_cluster(run: Run, what: str) -> dict:
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"} | HEALTH
    done = subprocess.run(
        [sys.executable, "-c", CLUSTER, str(run.path), what],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
    )
    answers = [line for line in done.stdout.splitlines() if line.startswith("ANSWER")]
    assert answers, done.stdout[-2000:] + done.stderr[-2000:]
    return json.loads(answers[-1].removeprefix("ANSWER"))


@pytest.fixture(scope="module")
def uninterrupted(data, tmp_path_factory, ray_session):
    """The same run on two workers of one node, without a fault."""
    from pipelines.training.parallel_stages import train_run

    run = start(tmp_path_factory.mktemp("straight"), data)
    assert [result.error for result in train_run(run)] == [None]
    return run


def test_a_node_that_is_lost_and_replaced_changes_no_weight(data, uninterrupted, tmp_path):
    run = start(tmp_path / "run", data)
    answer = on_a_cluster(run, "replace")
    assert answer["errors"] == [None]
    assert answer["steps"] == [NUM_STEPS]
    assert 20 <= answer["lost_at"] < NUM_STEPS, "the node was to be lost in the middle"
    (stage,), (alone,) = run.stages, uninterrupted.stages
    for name in ("model.safetensors", "ema.safetensors"):
        expected = load_file(alone.newest_checkpoint().path / name)
        for key, weight in load_file(stage.newest_checkpoint().path / name).items():
            assert weight.equal(expected[key]), f"{name}: {key}"


def test_an_elastic_run_goes_on_with_fewer_workers_in_the_same_order(data, uninterrupted, tmp_path):
    run = start(tmp_path / "run", data, placement__min_workers=1)
    answer = on_a_cluster(run, "shrink")
    assert answer["errors"] == [None]
    assert answer["steps"] == [NUM_STEPS]
    (stage,), (alone,) = run.stages, uninterrupted.stages
    ours, theirs = ([line for line in read_metrics(s.metrics) if line["kind"] == "train"] for s in (stage, alone))
    losses = {line["step"]: line["loss"] for line in theirs}
    after = [line for line in ours if line["step"] > answer["lost_at"] + 10]
    assert after
    for line in after:  # one worker adds up what two did: the same samples and noise, other rounding, which grows
        assert line["loss"] == pytest.approx(losses[line["step"]], rel=3e-2)
    assert {line["world_size"] for line in ours} == {1, 2}
