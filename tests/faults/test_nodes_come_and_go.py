"""A node dies while a cluster of several (Ray's own test cluster) trains; an elastic run continues without it."""

import json
import subprocess
import sys

import pytest

from pipelines.runs.run_folder import Run
from tests.commands import ROOT, clean_environment
from tests.faults.fault_runs import HEALTH, NUM_STEPS, assert_identical, start, training_lines
from tests.faults.gate import HELD_AT

CLUSTER = """
# argv: run folder, "replace" or "shrink". A head without CPUs and two nodes of one; one of them is lost at step 20.
import json, sys, threading, time, ray
from pathlib import Path
from ray.cluster_utils import Cluster
from pipelines.training.checkpoints import steps_done
from pipelines.runs.run_folder import open_run
from pipelines.training.parallel_stages import train_run
from tests.faults.gate import RUNTIME_ENV
from tests.processes import wait_for
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": 80_000_000})
nodes = [cluster.add_node(num_cpus=1, object_store_memory=80_000_000) for _ in range(2)]
ray.init(address=cluster.address, runtime_env=RUNTIME_ENV, log_to_driver=False, logging_level="ERROR")
run = open_run(sys.argv[1])
results = []
thread = threading.Thread(target=lambda: results.extend(train_run(run)))
thread.start()
wait_for((Path(sys.argv[1]) / "held").exists, thread.is_alive)
lost_at = steps_done(run.stages[0])
cluster.remove_node(nodes[1], allow_graceful=False)  # SIGKILL to its raylet, and its workers with it
if sys.argv[2] == "replace":
    cluster.add_node(num_cpus=1, object_store_memory=80_000_000)
thread.join()
answer = {"lost_at": lost_at, "errors": [r.error for r in results], "steps": [r.step for r in results]}
print("ANSWER", json.dumps(answer), flush=True)
ray.shutdown()
cluster.shutdown()
"""


def on_a_cluster(run: Run, what: str) -> dict:
    done = subprocess.run(
        [sys.executable, "-c", CLUSTER, str(run.path), what],
        cwd=ROOT,
        env=clean_environment(**HEALTH),
        capture_output=True,
        text=True,
    )
    answers = [line for line in done.stdout.splitlines() if line.startswith("ANSWER")]
    assert answers, done.stdout[-2000:] + done.stderr[-2000:]
    return json.loads(answers[-1].removeprefix("ANSWER"))


def test_a_node_that_is_lost_and_replaced_changes_no_weight(data, on_two_workers, tmp_path):
    run = start(tmp_path / "run", data, placement__num_workers=2, placement__cpus_per_worker=1.0)
    answer = on_a_cluster(run, "replace")
    assert answer == {"lost_at": HELD_AT, "errors": [None], "steps": [NUM_STEPS]}
    assert_identical(run, on_two_workers)


def test_an_elastic_run_goes_on_with_fewer_workers_in_the_same_order(data, on_two_workers, tmp_path):
    placement = {"placement__num_workers": 2, "placement__min_workers": 1, "placement__cpus_per_worker": 1.0}
    run = start(tmp_path / "run", data, **placement)
    answer = on_a_cluster(run, "shrink")
    assert answer == {"lost_at": HELD_AT, "errors": [None], "steps": [NUM_STEPS]}
    ours, losses = training_lines(run), {line["step"]: line["loss"] for line in training_lines(on_two_workers)}
    after = [line for line in ours if line["step"] > HELD_AT]
    assert after
    for line in after:  # one worker adds up what two did: the same samples and noise, other rounding, which grows
        assert line["loss"] == pytest.approx(losses[line["step"]], rel=3e-2)
    assert {line["world_size"] for line in ours} == {1, 2}
