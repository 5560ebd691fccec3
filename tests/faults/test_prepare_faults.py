"""A preparation survives what really happens to it: each test kills or breaks something real and looks at what is left.

A named pipe among the images is the handle: whoever reads it waits, in the middle of a shard, until it is killed.
"""

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines.prepare.preparation import prepare
from pipelines.prepare.progress import PrepareProgress
from pipelines.prepare.verify import verify
from pipelines.settings.prepare import PrepareConfig
from pipelines.shards.manifest import load_manifest
from sr3core.config import to_dict
from tests.commands import ROOT
from tests.processes import can_mount
from tests.s3_server import FaultyProxy, S3Server

DEADLINE_SECONDS = 120.0
NUM_IMAGES = 24

DRIVER = """
import json, sys, ray
from pipelines.settings.prepare import PrepareConfig
from pipelines.prepare.preparation import prepare
from sr3core.config import from_dict
from sr3core.errors import Sr3Error
ray.init("local", num_cpus=2, object_store_memory=100_000_000, include_dashboard=False, log_to_driver=False)
for line in sys.stdin:
    try:
        summary = prepare(from_dict(PrepareConfig, json.loads(line)))
        answer = {"written": summary.num_shards_written}
    except Sr3Error as error:
        answer = {"error": str(error), "kind": type(error).__name__}
    print("ANSWER", json.dumps(answer), flush=True)
"""

CLUSTER = """
import json, os, sys, threading, time, ray
from ray.cluster_utils import Cluster
from pipelines.settings.prepare import PrepareConfig
from pipelines.prepare.preparation import prepare
from sr3core.config import from_dict
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": 100_000_000})
nodes = [cluster.add_node(num_cpus=2, object_store_memory=100_000_000) for _ in range(2)]
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
cluster.remove_node(lost[0], allow_graceful=False)
print("ANSWER", json.dumps("lost"), flush=True)
thread.join(100)
print("ANSWER", json.dumps({"written": done["s"].num_shards_written}), flush=True)
ray.shutdown()
cluster.shutdown()
"""


def quiet(_: PrepareProgress) -> None:
    """Progress that nobody reads."""


def picture(seed: int, side: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def wait_for(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.02)


def config_for(source: object, out: object, **changes: object) -> PrepareConfig:
    defaults = {"stages": ("8-16", "16-32"), "validation_fraction": 0.2, "samples_per_shard": 4}
    return PrepareConfig(source=str(source), out=str(out), **{**defaults, **changes})  # type: ignore[arg-type]


def data_of(out: Path) -> dict[str, bytes]:
    """Shards, indices and rejects: all that must not depend on what happened."""
    found = (path for path in out.glob("*/*") if path.name != "manifest.json")
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(found)}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("faults") / "source"
    folder.mkdir()
    for seed in range(NUM_IMAGES):
        (folder / f"{seed:02d}.png").write_bytes(picture(seed, 40))
    return folder


@pytest.fixture(scope="module")
def expected(source: Path, tmp_path_factory: pytest.TempPathFactory, ray_session: None) -> dict[str, bytes]:
    """What an undisturbed preparation makes."""
    out = tmp_path_factory.mktemp("expected")
    prepare(config_for(source, out), quiet)
    return data_of(out)


class Pipe:
    """A named pipe in place of an image: blocks the worker that reads it."""

    def __init__(self, path: Path) -> None:
        self._path, self._data = path, path.read_bytes()
        path.unlink()
        os.mkfifo(path)
        self._writer: int | None = None

    def reader(self) -> int:
        """The process that waits for the pipe, as soon as there is one."""
        found: list[int] = []

        def look() -> bool:
            if self._writer is None:
                try:
                    self._writer = os.open(self._path, os.O_WRONLY | os.O_NONBLOCK)
                except OSError:  # no reader yet
                    return False
            found[:] = [pid for pid in self._holders() if pid != os.getpid()]
            return bool(found)

        wait_for(look, "a worker in the middle of a shard")
        return found[0]

    def heal(self) -> None:
        """Put the image back, before whoever waits wakes up."""
        healed = self._path.with_name(f"{self._path.name}.healed")
        healed.write_bytes(self._data)
        os.replace(healed, self._path)
        if self._writer is not None:
            os.close(self._writer)
            self._writer = None

    def _holders(self) -> Iterator[int]:
        for link in Path("/proc").glob("[0-9]*/fd/*"):
            try:
                if os.readlink(link) == str(self._path):
                    yield int(link.parts[2])
            except OSError:
                continue


@pytest.fixture
def piped(source: Path, tmp_path: Path) -> tuple[Path, Pipe]:
    """The source with a pipe in it."""
    copy = tmp_path / "source"
    shutil.copytree(source, copy)
    return copy, Pipe(copy / "11.png")


class Driver:
    """A Python process that prepares what it is told, with a Ray of its own; leaving the block ends it."""

    def __init__(
        self, folder: Path, script: str, *arguments: str, within: tuple[str, ...] = (), **variables: str
    ) -> None:
        quiet = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "RAY_DATA_DISABLE_PROGRESS_BARS": "1"}
        self._log_path = folder / "driver.log"
        self._log = open(self._log_path, "wb")  # noqa: SIM115
        self.process = subprocess.Popen(
            [*within, sys.executable, "-c", script, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={**os.environ, "PYTHONPATH": str(ROOT), **quiet, **variables},
            text=True,
            start_new_session=True,
        )

    def __enter__(self) -> "Driver":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(60)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)  # whatever it has started and not ended
            self.process.wait()
            self._log.close()

    def tell(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def answer(self) -> Any:
        """Its next answer; Ray writes to the same stream."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("ANSWER "):
                return json.loads(line.removeprefix("ANSWER "))
        raise AssertionError(f"the driver ended: {self._log_path.read_text()[-3000:]}")

    def prepare(self, config: PrepareConfig) -> Any:
        self.tell(json.dumps(to_dict(config)))
        return self.answer()


def test_a_worker_killed_in_the_middle_of_a_shard(
    piped: tuple[Path, Pipe], tmp_path: Path, expected: dict[str, bytes]
) -> None:
    folder, pipe = piped

    def kill() -> None:
        worker = pipe.reader()
        os.kill(worker, signal.SIGKILL)
        wait_for(lambda: not Path(f"/proc/{worker}").exists(), "the worker to be gone")
        pipe.heal()

    killer = threading.Thread(target=kill)
    killer.start()
    prepare(config_for(folder, tmp_path / "out"), quiet)
    killer.join()
    assert data_of(tmp_path / "out") == expected
    assert verify(str(tmp_path / "out")) == []


def test_the_driver_killed_and_the_same_command_again(
    piped: tuple[Path, Pipe], tmp_path: Path, expected: dict[str, bytes]
) -> None:
    folder, pipe = piped
    config = config_for(folder, tmp_path / "out")
    with Driver(tmp_path, DRIVER) as driver:
        driver.tell(json.dumps(to_dict(config)))
        worker = pipe.reader()
        all_but_one = 2 * (len([name for name in expected if name.startswith("8-16/") and name.endswith(".tar")]) - 1)
        wait_for(lambda: len(list((tmp_path / "out").glob("*/*.index.json"))) == all_but_one, "the other shards")
        driver.process.kill()
    wait_for(lambda: not Path(f"/proc/{worker}").exists(), "its workers to be gone")
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
    health = {f"RAY_health_check_{name}": value for name, value in HEALTH_CHECK.items()}
    config = json.dumps(to_dict(config_for(folder, tmp_path / "out")))
    with Driver(tmp_path, CLUSTER, config, **health) as driver:
        driver.tell(str(pipe.reader()))
        assert driver.answer() == "lost"
        pipe.heal()
        answer = driver.answer()
    assert driver.process.returncode == 0
    assert answer["written"] == len([name for name in expected if name.startswith("8-16/") and name.endswith(".tar")])
    assert data_of(tmp_path / "out") == expected


HEALTH_CHECK = {"initial_delay_ms": "1000", "period_ms": "500", "timeout_ms": "1000", "failure_threshold": "3"}


def test_s3_that_answers_503_cuts_connections_and_fails_uploads(
    source: Path, tmp_path: Path, expected: dict[str, bytes], s3_server: S3Server
) -> None:
    client = s3_server.client()
    s3_server.create_bucket("faulty")
    for path in source.iterdir():
        client.put_object(Bucket="faulty", Key=f"in/some where/{path.name}", Body=path.read_bytes())

    def stored(prefix: str) -> dict[str, bytes]:
        keys = [item["Key"] for item in client.list_objects_v2(Bucket="faulty", Prefix=prefix).get("Contents", [])]
        return {key[len(prefix) :]: client.get_object(Bucket="faulty", Key=key)["Body"].read() for key in keys}

    with FaultyProxy(s3_server.port) as proxy, Driver(tmp_path, DRIVER, AWS_MAX_ATTEMPTS="4") as driver:

        def uri(path: str) -> str:
            return f"s3://faulty/{path}?endpoint_override={proxy.endpoint}"

        _weather_faults(proxy, driver, uri, stored, expected)
        _fail_uploads(proxy, driver, client, uri, stored)


def _weather_faults(proxy, driver, uri, stored, expected) -> None:
    """Every ninth request is refused and every third download breaks off: the result is the same."""
    requests = iter(range(10**6))
    downloads = iter(range(10**6))

    def fault(method: str, path: str) -> str | None:
        if next(requests) % 9 == 8:
            return "503"
        return "cut" if method == "GET" and ".png" in path and next(downloads) % 3 == 0 else None

    proxy.fault = fault
    answer = driver.prepare(config_for(uri("in/some where"), uri("out")))
    assert "error" not in answer, answer
    assert proxy.counts["503"] > 5
    assert proxy.counts["cut"] > 5
    found = {name: data for name, data in stored("out/").items() if "/" in name and "manifest" not in name}
    assert found == expected


def _fail_uploads(proxy, driver, client, uri, stored) -> None:
    """A multipart upload whose parts fail leaves no object and no part; afterwards the same command goes on."""
    for seed in range(4):  # noise of 1024x1024 is 3 MB an image: the shard goes up in parts
        client.put_object(Bucket="faulty", Key=f"large/{seed}.png", Body=picture(seed, 1024))
    parts = iter(range(10**6))
    proxy.fault = lambda method, path: "500" if "partNumber=2" in path and next(parts) >= 0 else None
    config = config_for(uri("large"), uri("big"), stages=("512-1024",), validation_fraction=0.0)
    answer = driver.prepare(config)
    assert answer["kind"] == "StorageError", answer
    assert "train-000000.tar" in answer["error"]
    assert next(parts) > 0, "the upload was not in parts"
    assert not [name for name in stored("big/") if name.startswith("512-1024/")]
    assert not client.list_multipart_uploads(Bucket="faulty").get("Uploads")
    proxy.fault = lambda method, path: None
    assert driver.prepare(config) == {"written": 1}
    assert {"512-1024/train-000000.tar", "512-1024/manifest.json"} <= stored("big/").keys()


@pytest.mark.skipif(not can_mount(), reason="needs a private mount, which this system does not allow")
def test_a_full_disk(source: Path, tmp_path: Path, expected: dict[str, bytes]) -> None:
    """In a mount namespace of its own, with a disk of 96 KiB that is enlarged later."""
    (tmp_path / "disk").mkdir()
    script = f"""
        mount -t tmpfs -o size=96k tmpfs "{tmp_path}/disk" || exit 9
        mkfifo "{tmp_path}/enlarge"
        (cat "{tmp_path}/enlarge"; mount -o remount,size=64m "{tmp_path}/disk";
         cp -r "{tmp_path}/disk" "{tmp_path}/first"
         echo > "{tmp_path}/enlarged") > /dev/null 2>&1 &
        "$0" "$@"
        cp -r "{tmp_path}/disk/out" "{tmp_path}/copy"
    """
    within = ("unshare", "-Urm", "sh", "-c", script)
    with Driver(tmp_path, DRIVER, within=within) as driver:
        config = config_for(source, tmp_path / "disk" / "out")
        answer = driver.prepare(config)
        assert answer.get("kind") == "StorageError", answer
        assert "No space left on device" in answer["error"]
        (tmp_path / "enlarge").write_text("")
        wait_for((tmp_path / "enlarged").exists, "the larger disk")
        finished = data_of(tmp_path / "first" / "out")
        assert not [name for name in finished if name.endswith(".tmp")]
        for name, data in finished.items():
            assert expected[name] == data, f"{name} is not whole"
        assert "error" not in driver.prepare(config)
    assert driver.process.returncode == 0
    assert data_of(tmp_path / "copy") == expected
    assert all(load_manifest(str(tmp_path / "copy" / stage)) for stage in ("8-16", "16-32"))
