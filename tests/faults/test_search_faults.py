"""A node dies while a cluster of several searches: every schedule is judged all the same, and the right one wins."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sr3core.config import to_dict
from tests.commands import ROOT, clean_environment
from tests.faults.fault_runs import HEALTH
from tune.search.records.search_report import read_search
from tune.search.schedule_search import search
from tune.search.settings import SearchConfig

CLUSTER = """
# argv: run folder, search configuration. Two nodes of one CPU; one is lost while the third trial or a later one runs.
import json, sys, threading, ray
from pathlib import Path
from tests.ray_head import SmallCluster
from sr3core.config import from_dict
from tune.search.settings import SearchConfig
from tests.processes import wait_for
from tune.search.schedule_search import search
cluster = SmallCluster()
nodes = [cluster.add_node() for _ in range(2)]
ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
run, results = Path(sys.argv[1]), []
config = from_dict(SearchConfig, json.loads(sys.argv[2]))
thread = threading.Thread(target=lambda: results.append(search(str(run), config)))
thread.start()
def states():
    entries = [json.loads(path.read_text()) for path in run.glob("*/search/*/trials/*.json")]
    return sum(entry["ended"] is not None for entry in entries), sum(entry["ended"] is None for entry in entries)
wait_for(lambda: states()[0] >= 2 and states()[1] >= 1, thread.is_alive)
ended, under_way = states()
cluster.lose(nodes[1])
cluster.add_node()
thread.join()
print("ANSWER", json.dumps({"ended": ended, "under_way": under_way, "path": str(results[0].path)}), flush=True)
ray.shutdown()
cluster.shutdown()
"""


def test_a_node_lost_in_a_search_changes_no_number_and_no_winner(uninterrupted, tmp_path):
    config = SearchConfig(
        stage="8-16",
        num_steps=6,
        num_trials=12,
        num_images=10,
        algorithm="random",  # its proposals do not depend on the order in which trials end
        warm_starts=(),
        features="seeded",
        confirm_split=None,
    )
    straight, broken = (Path(shutil.copytree(uninterrupted.path, tmp_path / name)) for name in ("straight", "broken"))
    expected = search(str(straight), config).report
    done = subprocess.run(
        [sys.executable, "-c", CLUSTER, str(broken), json.dumps(to_dict(config))],
        cwd=ROOT,
        env=clean_environment(**HEALTH),
        capture_output=True,
        text=True,
    )
    answers = [line for line in done.stdout.splitlines() if line.startswith("ANSWER")]
    assert answers, done.stdout[-2000:] + done.stderr[-2000:]
    answer = json.loads(answers[-1].removeprefix("ANSWER"))
    assert answer["under_way"] >= 1, "the node was to be lost in the middle"
    assert answer["ended"] < config.num_trials
    report = read_search(Path(answer["path"]))
    assert not report.failed
    ours, theirs = ({trial.name: trial.objective for trial in r.trials} for r in (report, expected))
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert ours[name] == pytest.approx(value, rel=1e-4)
    assert report.best == expected.best
    assert (broken / "8-16" / "schedules" / "best-6.json").is_file()
