"""A node dies while a cluster of several (Ray's own test cluster) trains; an elastic run continues without it."""

import json
import subprocess
import sys

import pytest

from pipelines.runs.run_folder import Run
from tests.commands import ROOT, clean_environment
from tests.faults.fault_runs import HEALTH, NUM_STEPS, assert_identical, start, training_lines
from tests.faults.gate import HELD_AT

WATCHED = {"RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "1", "RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S": "1"}

CLUSTER = """
# argv: run folder, "replace" or "shrink". A head without CPUs and two nodes of one; one of them is lost at step 20.
import json, sys, threading, time, ray
from pathlib import Path
from tests.ray_head import SmallCluster
from pipelines.training.checkpoints import steps_done
from pipelines.runs.run_folder import open_run
from pipelines.training.parallel_stages import train_run
from tests.faults.gate import HELD_AT, holding
from tests.processes import wait_for
cluster = SmallCluster()
nodes = [cluster.add_node() for _ in range(2)]
ray.init(address=cluster.address, runtime_env=holding(HELD_AT), log_to_driver=False, logging_level="ERROR")
run = open_run(sys.argv[1])
results = []
thread = threading.Thread(target=lambda: results.extend(train_run(run)))
thread.start()
wait_for((Path(sys.argv[1]) / f"held-{HELD_AT}").exists, thread.is_alive)
lost_at = steps_done(run.stages[0])
cluster.lose(nodes[1])
if sys.argv[2] == "replace":
    cluster.add_node()
thread.join()
answer = {"lost_at": lost_at, "errors": [r.error for r in results], "steps": [r.step for r in results]}
print("ANSWER", json.dumps(answer), flush=True)
ray.shutdown()
cluster.shutdown()
"""


RECLAIMED = """
# argv: run folder. A node that trains is announced to be reclaimed, as a cloud does with a spot node, and is lost.
import json, subprocess, sys, threading, ray
from pathlib import Path
from tests.ray_head import SmallCluster
from pipelines.training.checkpoints import steps_done
from pipelines.training.pulse import ask_to_stop, read_pulse
from pipelines.runs.run_folder import open_run
from pipelines.training.parallel_stages import train_run
from tests.processes import wait_for
cluster = SmallCluster()
node = cluster.add_node()
ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
run = open_run(sys.argv[1])
(stage,) = run.stages
results = []
thread = threading.Thread(target=lambda: results.extend(train_run(run)), daemon=True)
thread.start()
step = lambda: getattr(read_pulse(stage.path), "step", 0)
wait_for(lambda: step() > 0, thread.is_alive)
assert steps_done(stage) == 0
notice = ["--reason-message", "spot", "--deadline-remaining-seconds", "120"]
ray_command = str(Path(sys.executable).with_name("ray"))
drain = [ray_command, "drain-node", "--address", cluster.address, "--node-id", node.node_id, *notice]
subprocess.run([*drain, "--reason", "DRAIN_NODE_REASON_PREEMPTION"], check=True, capture_output=True)
wait_for(lambda: steps_done(stage) > 0, thread.is_alive)
saved = steps_done(stage)
cluster.lose(node)
reached = step()
cluster.add_node()
wait_for(lambda: step() > reached, thread.is_alive)
ask_to_stop(stage)
thread.join()
answer = {"saved": saved, "reached": reached, "errors": [str(r.error) for r in results], "step": results[0].step}
print("ANSWER", json.dumps(answer), flush=True)
ray.shutdown()
cluster.shutdown()
"""


JOINED = """
# argv: run folder. A node joins while an elastic stage trains on another one.
import json, sys, threading, ray
from pathlib import Path
from tests.ray_head import SmallCluster
from pipelines.training import worker_loop
from pipelines.training.pulse import ask_to_stop, read_pulse
from pipelines.runs.run_folder import open_run, read_metrics
from pipelines.training.parallel_stages import train_run
from tests.processes import wait_for
worker_loop.RESIZE_SECONDS = 1.0
cluster = SmallCluster()
cluster.add_node()
ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
run = open_run(sys.argv[1])
(stage,) = run.stages
results = []
thread = threading.Thread(target=lambda: results.extend(train_run(run)), daemon=True)
thread.start()
trains_on = lambda: [line["world_size"] for line in read_metrics(stage.metrics) if line["kind"] == "train"]
wait_for(lambda: 1 in trains_on(), thread.is_alive)
cluster.add_node()
wait_for(lambda: 2 in trains_on(), thread.is_alive)
ask_to_stop(stage)
thread.join()
print("ANSWER", json.dumps({"errors": [str(r.error) for r in results], "step": results[0].step}), flush=True)
ray.shutdown()
cluster.shutdown()
"""


def on_a_cluster(run: Run, script: str, *arguments: str) -> dict:
    done = subprocess.run(
        [sys.executable, "-c", script, str(run.path), *arguments],
        cwd=ROOT,
        env=clean_environment(**HEALTH, **WATCHED),
        capture_output=True,
        text=True,
    )
    answers = [line for line in done.stdout.splitlines() if line.startswith("ANSWER")]
    assert answers, done.stdout[-2000:] + done.stderr[-2000:]
    return json.loads(answers[-1].removeprefix("ANSWER"))


def test_a_node_that_is_lost_and_replaced_changes_no_weight(data, on_two_workers, tmp_path):
    run = start(tmp_path / "run", data, placement__num_workers=2, placement__cpus_per_worker=1.0)
    answer = on_a_cluster(run, CLUSTER, "replace")
    assert answer == {"lost_at": HELD_AT, "errors": [None], "steps": [NUM_STEPS]}
    assert_identical(run, on_two_workers)


def test_an_elastic_run_goes_on_with_fewer_workers_in_the_same_order(data, on_two_workers, tmp_path):
    placement = {"placement__num_workers": 2, "placement__min_workers": 1, "placement__cpus_per_worker": 1.0}
    run = start(tmp_path / "run", data, **placement)
    answer = on_a_cluster(run, CLUSTER, "shrink")
    assert answer == {"lost_at": HELD_AT, "errors": [None], "steps": [NUM_STEPS]}
    ours, losses = training_lines(run), {line["step"]: line["loss"] for line in training_lines(on_two_workers)}
    after = [line for line in ours if line["step"] > HELD_AT]
    assert after
    for line in after:  # one worker adds up what two did: the same samples and noise, other rounding, which grows
        assert line["loss"] == pytest.approx(losses[line["step"]], rel=3e-2)
    assert {line["world_size"] for line in ours} == {1, 2}


def test_a_node_that_joins_costs_no_step(data, tmp_path):
    """Checkpoints by steps alone would come after 100,000: the workers' restart would begin at step 0."""
    changes = {"num_steps": 100_000, "checkpoint_every": 100_000, "log_every": 10, "validation_every": 100_000}
    placement = {"placement__num_workers": 2, "placement__min_workers": 1, "placement__cpus_per_worker": 1.0}
    run = start(tmp_path / "run", data, **changes, **placement)
    answer = on_a_cluster(run, JOINED)
    assert answer["errors"] == ["None"]
    *lines, _ = training_lines(run)  # the last one is that of the stop
    steps = [line["step"] for line in lines]
    assert steps == list(range(10, len(steps) * 10 + 1, 10)), "none is missing, none is there twice"
    sizes = [line["world_size"] for line in lines]
    assert sizes == sorted(sizes)
    assert {1, 2} <= set(sizes)


def test_a_node_that_is_announced_to_be_reclaimed_costs_the_steps_since_then_and_no_failure(data, tmp_path):
    """Checkpoints by steps alone would come after 100,000; max_failures is 0."""
    changes = {"num_steps": 100_000, "checkpoint_every": 100_000, "log_every": 10, "validation_every": 100_000}
    run = start(tmp_path / "run", data, **changes, placement__cpus_per_worker=1.0, placement__max_failures=0)
    answer = on_a_cluster(run, RECLAIMED)
    assert 0 < answer["saved"] <= answer["reached"] < answer["step"]
    assert answer["errors"] == ["None"]
    *lines, _ = [line["step"] for line in training_lines(run)]  # the last one is that of the stop
    assert lines == list(range(10, len(lines) * 10 + 1, 10)), "none is missing, none is there twice"
