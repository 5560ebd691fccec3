"""A worker, a driver and a node are lost in the middle of a shard: the same bytes come out."""

import json
import os
import signal
import threading
from pathlib import Path

from pipelines.prepare.finished.verify import verify
from pipelines.prepare.preparation import prepare
from sr3core.config import to_dict
from tests.faults.fault_runs import HEALTH
from tests.faults.interrupted_preparations import DRIVER, Driver, Pipe, config_for, data_of, quiet
from tests.processes import wait_for

CLUSTER = """
import json, sys, threading, ray
from tests.ray_head import SmallCluster
from pipelines.settings.prepare import PrepareConfig
from pipelines.prepare.preparation import prepare
from sr3core.config import from_dict
from tests.faults.interrupted_preparations import Pipe
Pipe(sys.argv[2]).lay_after_planning()
cluster = SmallCluster(store_bytes=100_000_000)
nodes = [cluster.add_node(num_cpus=2) for _ in range(2)]
ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
done = {}
thread = threading.Thread(target=lambda: done.update(s=prepare(from_dict(PrepareConfig, json.loads(sys.argv[1])))))
thread.start()
reader = int(sys.stdin.readline())  # a worker that waits for the pipe
parents = set()
while reader > 1:
    parents.add(reader)
    with open(f"/proc/{reader}/stat") as file:
        reader = int(file.read().rpartition(")")[2].split()[1])
lost = [n for n in nodes if any(p.process.pid in parents for p in n.all_processes["raylet"])]
assert len(lost) == 1, (len(lost), parents)
cluster.lose(lost[0])
print("ANSWER", json.dumps("lost"), flush=True)
thread.join()
print("ANSWER", json.dumps({"written": done["s"].num_shards_written}), flush=True)
ray.shutdown()
cluster.shutdown()
"""


def test_a_worker_killed_in_the_middle_of_a_shard(
    piped: tuple[Path, Pipe], tmp_path: Path, expected: dict[str, bytes]
) -> None:
    folder, pipe = piped

    def kill() -> None:
        worker = pipe.reader()
        os.kill(worker, signal.SIGKILL)
        wait_for(lambda: not Path(f"/proc/{worker}").exists())
        pipe.heal()

    pipe.lay_after_planning()
    killer = threading.Thread(target=kill)
    killer.start()
    prepare(config_for(folder, tmp_path / "out"), quiet)
    killer.join()
    assert data_of(tmp_path / "out") == expected
    assert verify(str(tmp_path / "out")) == []


def test_the_driver_killed_and_the_same_command_again(
    piped: tuple[Path, Pipe], tmp_path: Path, expected: dict[str, bytes], ray_session: str
) -> None:
    folder, pipe = piped
    config = config_for(folder, tmp_path / "out")
    with Driver(tmp_path, DRIVER, ray_session, str(pipe.path)) as driver:
        driver.tell(json.dumps(to_dict(config)))
        worker = pipe.reader()
        all_but_one = 2 * (len([name for name in expected if name.startswith("8-16/") and name.endswith(".tar")]) - 1)
        wait_for(
            lambda: len(list((tmp_path / "out").glob("*/*.index.json"))) == all_but_one,
            lambda: driver.process.poll() is None,
        )
        driver.process.kill()
    wait_for(lambda: not Path(f"/proc/{worker}").exists())
    pipe.heal()
    finished = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*/*.tar")}
    assert len(finished) == all_but_one
    assert not list((tmp_path / "out").glob("*/manifest.json"))

    summary = prepare(config, quiet)
    assert summary.num_shards_written == 1
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    assert data_of(tmp_path / "out") == expected
    assert verify(str(tmp_path / "out")) == []


def test_a_node_lost_in_the_middle_of_a_shard(
    piped: tuple[Path, Pipe], tmp_path: Path, expected: dict[str, bytes]
) -> None:
    folder, pipe = piped
    config = json.dumps(to_dict(config_for(folder, tmp_path / "out")))
    with Driver(tmp_path, CLUSTER, config, str(pipe.path), variables=HEALTH) as driver:
        driver.tell(str(pipe.reader()))
        assert driver.answer() == "lost"
        pipe.heal()
        answer = driver.answer()
    assert driver.process.returncode == 0
    assert answer["written"] == len([name for name in expected if name.startswith("8-16/") and name.endswith(".tar")])
    assert data_of(tmp_path / "out") == expected
