"""What a preparation costs its driver: memory and CPU a name, requests and seconds a shard.

    python tests/benchmarks/bench_scale.py names 1300000 10000000
    python tests/benchmarks/bench_scale.py shards 1000 10000 --latency 0.04
    python tests/benchmarks/bench_scale.py list 100000 --latency 0.04
    python tests/benchmarks/bench_scale.py reads 200 --latency 0.03
    python tests/benchmarks/bench_scale.py archives 2000 --latency 0.03
    python tests/benchmarks/bench_scale.py tasks 1000 20000

`names` plans a source of so many names, which are made up as they are listed: no file is behind them, so what is
timed is everything but the listing itself. Each count runs in a process of its own, without Ray, or with --ray on two
CPUs, where tasks work on the parts and the numbers are the driver's alone; another line has the most memory that any
process held for itself, the driver, Ray's workers and its servers, looked at four times a second. `shards` resumes a
finished preparation of so many shards in a bucket that answers late, and asks for its status. `list` lists a bucket
of so many objects, one page after another and side by side. `reads` writes a shard of so many photos of such a
bucket, with and without reading ahead, in turns. `archives` lists tars and parquet files of so many images and writes
shards of them, with and without --group-tars. `tasks` runs so many tasks that do nothing, as shards are run. Times
are of this process's CPUs; compare them on one machine alone.
"""

import argparse
import contextlib
import hashlib
import io
import json
import os
import resource
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as parquet
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from pipelines.images.compact_png import encode_compact_png  # noqa: E402
from pipelines.images.file_names import IgnoredFiles  # noqa: E402
from pipelines.prepare.finished.status import prepare_status  # noqa: E402
from pipelines.prepare.plan.dealing import plan_shards  # noqa: E402
from pipelines.prepare.plan.shard_plan import load_items, load_own_plan, write_plan  # noqa: E402
from pipelines.prepare.preparation import prepare  # noqa: E402
from pipelines.prepare.sources.bucket_files import files_in_bucket  # noqa: E402
from pipelines.prepare.sources.items import Source  # noqa: E402
from pipelines.prepare.sources.listed_parts import FileList, Survey, list_files  # noqa: E402
from pipelines.prepare.sources.listing import open_source  # noqa: E402
from pipelines.prepare.writing import read_ahead  # noqa: E402
from pipelines.prepare.writing.shard_task import ShardTask, write_shard  # noqa: E402
from pipelines.runtime.row_tasks import map_rows  # noqa: E402
from pipelines.runtime.tasks import map_in_tasks  # noqa: E402
from pipelines.settings.prepare import PrepareConfig  # noqa: E402
from pipelines.shards import manifest  # noqa: E402
from pipelines.storage.uris import list_files as list_files_of  # noqa: E402
from sr3core.config import fingerprint  # noqa: E402
from tests.s3_server import ENVIRONMENT  # noqa: E402
from tests.slow_s3 import SlowS3  # noqa: E402

IMAGES_A_SHARD = 10


def made_up(count: int) -> Iterator[tuple[str, int]]:
    """ImageNet's names: a thousand folders."""
    for number in range(count):
        synset = f"n{1440764 + number % 1000:08d}"
        yield f"train/{synset}/{synset}_{number}.JPEG", 110_000


def plan_names(count: int) -> dict[str, float]:
    """Seconds of CPU and megabytes that listing's parts and the plan of so many names take."""
    before, started, wall = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time(), time.monotonic()
    survey = Survey(IgnoredFiles())
    survey.add(map_in_tasks(list_files, FileList(made_up(count))))
    listed = time.process_time() - started
    config = PrepareConfig(source="none", out="none", stages=("64-256",))
    plan, lines = plan_shards(config, Source("none", "files", "folder", survey.parts, survey.ignored))
    with tempfile.TemporaryDirectory() as folder:
        lines.save(f"{folder}/plan.jsonl")
        size = os.path.getsize(f"{folder}/plan.jsonl")
    seconds = time.process_time() - started
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {
        "names": count,
        "shards": len(plan.shards),
        "seconds_listing_parts": listed,
        "seconds": seconds,
        "wall_seconds": time.monotonic() - wall,
        "microseconds_a_name": seconds / count * 1e6,
        "megabytes": memory / 1024,
        "bytes_a_name": memory * 1024 / count,
        "plan_megabytes": size / 1e6,
    }


def resume_shards(count: int, latency: float) -> list[dict[str, object]]:
    """Requests, bytes and seconds of a first look, of a resume and of the status."""
    os.environ.update(ENVIRONMENT)
    with SlowS3() as server:
        address = f"?endpoint_override={server.endpoint}"
        for number in range(count * IMAGES_A_SHARD):
            server.put(f"bucket/in/{number % 100:03d}/{number}.jpg", b"")
        config = PrepareConfig(
            source=f"s3://bucket/in{address}",
            out=f"s3://bucket/out{address}",
            stages=("64-256",),
            samples_per_shard=IMAGES_A_SHARD,
        )
        write_plan(config, *plan_shards(config, open_source(config.source)))
        _pretend_shards(server, config)
        looks: list[tuple[str, float, Callable[[], object]]] = [
            ("resume without a table, of a bucket that answers at once", 0.0, lambda: prepare(config, lambda _: None)),
            ("resume", latency, lambda: prepare(config, lambda _: None)),
            ("status", latency, lambda: prepare_status(config.out)),
        ]
        rows: list[dict[str, object]] = []
        for what, server.latency, function in looks:
            rows.append({"shards": count, "what": what, **_measured(server, function)})
        return rows


def list_bucket(count: int, latency: float) -> list[dict[str, object]]:
    """Requests and seconds of listing a source in a bucket, in folders and in a single one."""
    flat = (f"{number * 2654435761 % 2**32:08x}.jpg" for number in range(count))
    return [
        {"names": count, "layout": layout, **row}
        for layout, names in (("folders", (name for name, _ in made_up(count))), ("flat", flat))
        for row in _listings(names, latency)
    ]


def _listings(names: Iterable[str], latency: float) -> list[dict[str, object]]:
    os.environ.update(ENVIRONMENT)
    with SlowS3() as server:
        for name in names:
            server.objects[f"bucket/in/{name}"] = b""
        uri = f"s3://bucket/in?endpoint_override={server.endpoint}"
        next(iter(list_files_of(uri)))  # the server sorts its names
        server.latency = latency
        ways: dict[str, Callable[[], object]] = {
            "one page after another": lambda: deque(list_files_of(uri), maxlen=0),
            "side by side": lambda: deque(files_in_bucket(uri, IgnoredFiles(), ()), maxlen=0),
        }
        return [{"what": what, **_measured(server, function)} for what, function in ways.items()]


def read_images(count: int, latency: float) -> list[dict[str, object]]:
    """Seconds that a shard of photos of a bucket takes, and the images a second."""
    os.environ.update(ENVIRONMENT)
    photos = sorted((ROOT / "pipelines" / "demo_photos").glob("*.jpg"))
    rows: list[dict[str, object]] = []
    with SlowS3() as server, tempfile.TemporaryDirectory() as folder:
        for number in range(count):
            server.put(f"bucket/in/{number}.jpg", photos[number % len(photos)].read_bytes() + bytes([number % 256]))
        source = f"s3://bucket/in?endpoint_override={server.endpoint}"
        config = PrepareConfig(source=source, out=folder, stages=("16-64",), validation_fraction=0)
        write_plan(config, *plan_shards(config, open_source(source)))
        (shard,) = load_own_plan(config).shards
        server.latency = latency
        digests = set()
        for num_reads in (1, read_ahead.NUM_READS) * 3:
            read_ahead.NUM_READS, started = num_reads, time.monotonic()
            write_shard(config, ShardTask(shard, config.stages))
            seconds = time.monotonic() - started
            digests.add(hashlib.sha256((Path(folder) / "16-64" / shard.name).read_bytes()).hexdigest())
            rows.append({"reads": num_reads, "seconds": seconds, "images_per_second": count / seconds})
        assert len(digests) == 1, "the bytes are the same"
    return rows


def read_archives(count: int, latency: float) -> list[dict[str, object]]:
    """Requests and bytes of listing tars and tables in a bucket, and of writing shards of their images."""
    os.environ.update(ENVIRONMENT)
    rows: list[dict[str, object]] = []
    archives = {"tar": _tars(count), "parquet": _tables(count)}
    for kind, grouped in (("tar", False), ("tar", True), ("parquet", False)):
        with SlowS3() as server, tempfile.TemporaryDirectory() as folder:
            for number, data in enumerate(archives[kind]):
                server.put(f"bucket/in/{number}.{kind}", data)
            about = {"kind": kind, "group_tars": grouped, "megabytes_of_archives": sum(map(len, archives[kind])) / 1e6}
            rows += ({**about, **row} for row in _from_archives(server, folder, grouped, latency))
    return rows


def _from_archives(server: SlowS3, folder: str, grouped: bool, latency: float) -> list[dict[str, object]]:
    source = f"s3://bucket/in?endpoint_override={server.endpoint}"
    config = PrepareConfig(source=source, out=folder, stages=("16-64",), samples_per_shard=250, group_tars=grouped)
    server.latency = latency
    listing = _measured(server, lambda: write_plan(config, *plan_shards(config, open_source(source))))
    tasks = [ShardTask(shard, config.stages) for shard in load_own_plan(config).shards]
    writing = _measured(server, lambda: deque((write_shard(config, task) for task in tasks), maxlen=0))
    return [{"what": "listing", **listing}, {"what": "writing", **writing}]


def _small_photos(count: int) -> list[bytes]:
    """JPEGs of 256 x 256, no two of the same bytes."""
    photos = []
    for path in sorted((ROOT / "pipelines" / "demo_photos").glob("*.jpg")):
        buffer = io.BytesIO()
        Image.open(path).convert("RGB").resize((256, 256)).save(buffer, "JPEG", quality=95)
        photos.append(buffer.getvalue())
    return [photos[number % len(photos)] + str(number).encode() for number in range(count)]


def _tars(count: int) -> list[bytes]:
    """Tars of 500 images each, with a text beside each."""
    found = []
    photos = _small_photos(count)
    for start in range(0, count, 500):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            for number, photo in enumerate(photos[start : start + 500], start):
                for end, data in (("jpg", photo), ("txt", b"a caption")):
                    member = tarfile.TarInfo(f"{number:08d}.{end}")
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))
        found.append(buffer.getvalue())
    return found


def _tables(count: int) -> list[bytes]:
    """Parquet files of 500 images each, in groups of 100 rows."""
    found = []
    photos = _small_photos(count)
    for start in range(0, count, 500):
        images = [{"bytes": photo, "path": f"{start + n}.jpg"} for n, photo in enumerate(photos[start : start + 500])]
        buffer = io.BytesIO()
        parquet.write_table(pa.table({"image": images}), buffer, row_group_size=100)
        found.append(buffer.getvalue())
    return found


def start_ray() -> None:
    """A Ray of two CPUs."""
    import ray

    options = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
    environment = {"env_vars": {"PYTHONPATH": str(ROOT)}}
    ray.init(num_cpus=2, object_store_memory=300_000_000, runtime_env=environment, **options)


def run_tasks(count: int) -> dict[str, float]:
    """Seconds and megabytes of a driver that has so many tasks done."""

    row = {
        "task": json.dumps({"shard": {"name": "train-000000.tar", "offset": 1 << 30}, "stages": ["64-256"]}) + " " * 200
    }
    list(map_rows(_nothing, [row]))
    before, cpu, wall = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time(), time.monotonic()
    found = sum(1 for _ in map_rows(_nothing, (row for _ in range(count))))
    assert found == count
    return {
        "tasks": count,
        "driver_cpu_seconds": time.process_time() - cpu,
        "wall_seconds": time.monotonic() - wall,
        "megabytes": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024,
    }


def _nothing(row: dict[str, str]) -> dict[str, bytes]:
    return {"report": b"0" * 300}


def _pretend_shards(server: SlowS3, config: PrepareConfig) -> None:
    """Put the indices of a finished preparation into the bucket, and tars whose every record is one picture."""
    picture = encode_compact_png(np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8))
    stage, write = config.stages[0], manifest.write_atomic
    manifest.write_atomic = lambda uri, data: server.put(uri.partition("?")[0].removeprefix("s3://"), data)
    for shard in load_own_plan(config).shards:
        names = tuple(item.name for item in load_items(config.out, shard))
        keys = tuple(f"{hash(name) & (1 << 64) - 1:020x}" for name in names)
        digests = tuple(key.rjust(64, "0")[::-1] for key in keys)
        members = tuple({end: (0, len(picture)) for end in ("hr.png", "lr.png", "json")} for _ in names)
        labels = (None,) * len(names)
        manifest.save_index(
            f"s3://bucket/out/{stage}",
            manifest.ShardIndex(
                shard.name, fingerprint(config), shard.fingerprint, 1, "0" * 64, keys, members, digests, names, labels
            ),
        )
        server.put(f"bucket/out/{stage}/{shard.name}", picture)
    manifest.write_atomic = write


def _measured(server: SlowS3, function: Callable[[], object]) -> dict[str, object]:
    server.requests.clear()
    server.num_bytes = server.most_at_once = 0
    wall, cpu = time.monotonic(), time.process_time()
    function()
    return {
        "requests": dict(server.requests),
        "most_requests_at_once": server.most_at_once,
        "megabytes": server.num_bytes / 1e6,
        "wall_seconds": time.monotonic() - wall,
        "cpu_seconds_with_the_server": time.process_time() - cpu,
    }


def watch_memory(command: list[str]) -> dict[str, float]:
    """Run a command to its end; kind of process -> the most megabytes that one of them had, without shared ones."""
    most: dict[str, float] = {}
    with subprocess.Popen(command) as running:
        while running.poll() is None:
            for process in _processes(running.pid):
                with contextlib.suppress(psutil.Error):
                    memory, name = process.memory_info(), process.name().partition("::")[0]
                    name = "driver" if process.pid == running.pid else name
                    most[name] = max(most.get(name, 0.0), (memory.rss - memory.shared) / 1e6)
            time.sleep(0.25)
    assert running.returncode == 0, f"exit status {running.returncode}"
    return {f"most_megabytes_of_{name}": size for name, size in sorted(most.items(), key=lambda item: -item[1])}


def _processes(pid: int) -> list[psutil.Process]:
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    return []


def found(what: str, count: int, latency: float) -> list[dict[str, Any]]:
    """What is measured of so many."""
    if what == "names":
        return [plan_names(count)]
    if what == "tasks":
        return [run_tasks(count)]
    return {"shards": resume_shards, "list": list_bucket, "reads": read_images, "archives": read_archives}[what](
        count, latency
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["names", "shards", "list", "reads", "archives", "tasks"])
    parser.add_argument("counts", type=int, nargs="+")
    parser.add_argument("--latency", type=float, default=0.04, help="seconds before each answer of the bucket")
    parser.add_argument("--ray", action="store_true", help="plan names in tasks")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    for count in options.counts:
        if not options.here:
            command = [sys.executable, __file__, options.what, str(count), f"--latency={options.latency}", "--here"]
            print(json.dumps(watch_memory(command + ["--ray"] * options.ray)))
            continue
        if options.ray or options.what == "tasks":
            start_ray()
        for row in found(options.what, count, options.latency):
            print(json.dumps(row))


if __name__ == "__main__":
    main()
