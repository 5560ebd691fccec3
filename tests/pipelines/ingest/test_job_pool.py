"""Decoding in processes: they are replaced when killed, named when they cannot help it, and end with their parent."""

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from pipelines.ingest.batches import order_of
from pipelines.ingest.loader import Loader, num_decoders
from pipelines.ingest.split_reader import open_training_split
from pipelines.settings.presets import small_stage
from pipelines.settings.train import PlacementConfig
from sr3core.config import override
from sr3core.errors import DataError, Sr3Error
from tests.commands import ROOT
from tests.synthetic_shards import write_shards

CONFIG = override(small_stage(8, 16, 8, 10, 1), placement__decoding_processes=2)


def load(loader, split, config, steps):
    order = order_of(split, config)
    return [loader.load(order.batch(step), step).result() for step in steps]


def test_a_killed_process_is_replaced_and_the_batches_are_the_same(synthetic):
    split = open_training_split(synthetic, CONFIG)
    with Loader(split, CONFIG, 16, None) as loader:
        before = load(loader, split, CONFIG, [0, 1])
        first = loader.pids
        for pid in first:
            os.kill(pid, signal.SIGKILL)
        again = load(loader, split, CONFIG, [0, 1])
        assert not set(first) & set(loader.pids)
        alive = loader.pids
    assert [batch.keys for batch in again] == [batch.keys for batch in before]
    assert all((one.high == other.high).all() for one, other in zip(before, again, strict=True))
    assert not any(psutil.pid_exists(pid) for pid in alive)


def test_what_a_process_finds_damaged_is_raised_by_its_name(tmp_path):
    data = write_shards(tmp_path, "8-16", [16])
    tar = Path(data) / "8-16" / "train-000000.tar"
    content = bytearray(tar.read_bytes())
    content[600:-600] = b"\xff" * (len(content) - 1200)
    tar.write_bytes(content)
    split = open_training_split(data, CONFIG)
    with Loader(split, CONFIG, 16, None) as loader, pytest.raises(DataError, match=r"hr is damaged.*sr3 verify"):
        load(loader, split, CONFIG, [0])


def test_a_process_that_dies_every_time_ends_training_with_what_it_was_reading(synthetic, tmp_path, monkeypatch):
    """A stand-in for memory that runs out: a Python that ends at once."""
    (tmp_path / "python").write_text("#!/bin/sh\nkill -9 $$\n")
    (tmp_path / "python").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    split = open_training_split(synthetic, CONFIG)
    wanted = (
        r"3 processes died one after another while they read train-00000\d.tar\[\d\].*exit status -9.*out of memory"
    )
    with Loader(split, CONFIG, 16, None) as loader, pytest.raises(Sr3Error, match=wanted):
        load(loader, split, CONFIG, [0])


def test_a_process_that_two_threads_end_at_once_is_closed_once(synthetic, monkeypatch):
    """A pool that closes, and a thread that replaces a process that has died: a second close would hit a descriptor
    that by then may belong to another file."""
    both = threading.Barrier(2)
    closed = []

    def close(connection):
        with contextlib.suppress(threading.BrokenBarrierError):
            both.wait(1)  # were there a second thread in here, it would be let in now
        closed.append(connection.fileno())
        os.close(connection.fileno())

    split = open_training_split(synthetic, CONFIG)
    with Loader(split, CONFIG, 16, None) as loader:
        process = loader._decoding._processes[0]
        monkeypatch.setattr(type(process._connection), "_close", close)
        with ThreadPoolExecutor(2) as threads:
            for call in [threads.submit(process.end) for _ in range(2)]:
                call.result()
        monkeypatch.undo()
    assert len(closed) == 1


ORPHAN = """
import os, sys
from pipelines.ingest.batches import batches_from
from pipelines.ingest.split_reader import open_training_split
from pipelines.settings.presets import small_stage
from sr3core.config import override
config = override(small_stage(8, 16, 8, 10, 1), placement__decoding_processes=2)
batches = batches_from(open_training_split(sys.argv[1], config), config, 0, 0, 1)
next(batches)
print("ready", flush=True)
sys.stdin.read()
"""


def test_processes_end_when_the_one_that_trains_is_killed(synthetic):
    parent = subprocess.Popen(
        [sys.executable, "-c", ORPHAN, synthetic], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout.readline() == "ready\n"
    children = psutil.Process(parent.pid).children(recursive=True)
    assert len(children) == 2
    parent.kill()
    parent.wait()
    _, alive = psutil.wait_procs(children, timeout=60)
    assert alive == []


def test_decoding_needs_neither_torch_nor_ray_nor_s3():
    """Each such module would cost every process memory, and seconds at its start."""
    code = "import sys, pipelines.ingest.job_process; print({'torch', 'ray', 'boto3', 'pydantic'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True).stdout == "set()\n"


@pytest.mark.parametrize(
    ("changes", "number"),
    [
        ({}, 0),
        ({"cpus_per_worker": 8.0}, 0),
        ({"use_gpu": True, "cpus_per_worker": 6.0}, 5),
        ({"use_gpu": True, "cpus_per_worker": 0.5}, 0),
        ({"use_gpu": True, "cpus_per_worker": 6.0, "decoding_processes": 2}, 2),
    ],
)
def test_a_gpus_cpus_decode_but_for_the_one_that_trains(changes, number):
    assert num_decoders(PlacementConfig(**changes)) == number


def test_slots_of_the_batch_memory_do_not_overlap(synthetic):
    split = open_training_split(synthetic, CONFIG)
    with Loader(split, CONFIG, 16, None) as loader:
        layout, array = loader._layout, loader._memory.array
        views = [view for slot in range(layout.num_slots) for view in layout.views(array, slot)]
        assert sum(view.nbytes for view in views) == layout.num_bytes == array.nbytes
        starts = sorted((view.__array_interface__["data"][0], view.nbytes) for view in views)
        assert all(start + size == following for (start, size), (following, _) in itertools.pairwise(starts))
