"""What it takes to feed a GPU: decoding in processes against threads and torch's DataLoader, and how training waits.

    python tests/benchmarks/bench_feed.py --source DIR [--stage 256-1024] [--processes 2] [--rounds 3]

All read the same shards in the same order and give the same bytes; they take turns, and medians of a round's ratios are
printed, since machines drift. Nothing trains: a step is a sleep, as long as a GPU's would be that takes `goal` images a
second, scaled from the cores that the goal allows to the processes that there are here. Printed are:

- images a second, and CPU milliseconds an image, of which follows how many cores a GPU's goal takes;
- by how much a thread that sleeps for 1 ms oversleeps: so late come a training thread's kernel launches;
- how long a step waits for its batch, as a share of a step at the goal, not of the longer one here.
"""

import argparse
import itertools
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ["OPENBLAS_NUM_THREADS"] = (
    "1"  # in threads and DataLoader too: several for each image cost more than they give
)
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import psutil
import torch
from torch.utils.data import DataLoader, Dataset

from pipelines.images.decoding import decode_image
from pipelines.ingest.augmentation import draw_variation, vary_low
from pipelines.ingest.batches import batches_from, order_of
from pipelines.ingest.record_reader import RecordReader
from pipelines.ingest.sample_order import SampleOrder
from pipelines.ingest.split_reader import SplitReader, open_training_split
from pipelines.runtime.allocator import keep_freed_memory
from pipelines.settings.presets import small_stage
from pipelines.settings.train import TrainConfig
from sr3core.config import override
from sr3core.images.pixels import largest_central_crop, to_float
from sr3core.images.resize import resize_area
from sr3core.randomness import derive_seed
from tests.synthetic_shards import write_shards

BATCH, PREFETCH = 32, 4
GOALS = {"256-1024": (200.0, 8), "64-256": (300.0, 2)}
"""Stage -> images a second for a GPU, and the cores that may decode them."""


class Batches(Dataset[Any]):
    """What one would write with torch's DataLoader: an item is a batch of the same order."""

    def __init__(self, split: SplitReader, config: TrainConfig) -> None:
        self._split, self._config, self._order = split, config, order_of(split, config)
        self._reader: RecordReader | None = None  # each process makes its own

    def __len__(self) -> int:
        return 10**6

    def __getitem__(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        self._reader = self._reader or RecordReader(self._split.directory)
        high, low = [], []
        for place in self._order.batch(step):
            record = self._reader.read(self._split.shards[place.shard], place.index)
            variation = draw_variation(
                self._config.augmentation, derive_seed(self._config.seed, "augmentation", step, place.position)
            )
            high.append(record.high)
            low.append(vary_low(record.low, variation) if record.low is not None else record.high)
        return torch.from_numpy(np.stack(high)), torch.from_numpy(np.stack(low))


@dataclass
class Reading:
    """One way's figures, of one round."""

    seconds: float
    """A batch, nothing else to do."""
    cpu: float
    """CPU seconds an image, children included."""
    oversleep: float
    """Mean of a sleeper of 1 ms, milliseconds."""
    waiting: float
    """Seconds a step that training waits at the scaled goal."""


def cpu_seconds() -> float:
    """CPU seconds of this process and its children, dead or alive."""
    me = psutil.Process()
    times = [me.cpu_times(), *(child.cpu_times() for child in me.children(recursive=True))]
    return sum(t.user + t.system for t in times) + times[0].children_user + times[0].children_system


def read(batches: Iterator[Any], num_batches: int, step_seconds: float) -> Reading:
    """Measure one way, after two batches of warm-up."""
    for _ in itertools.islice(batches, 2):
        pass
    cpu, start = cpu_seconds(), time.perf_counter()
    for _ in itertools.islice(batches, num_batches):
        pass
    seconds, cpu = (time.perf_counter() - start) / num_batches, (cpu_seconds() - cpu) / num_batches / BATCH
    waited, late, slept = 0.0, 0.0, 0
    for number in range(-PREFETCH, num_batches):
        if number == 0:  # by now the batches ahead are as many as they get
            waited = 0.0
        until = time.perf_counter()
        batch = next(batches)
        waited += time.perf_counter() - until
        del batch  # a GPU's batch goes back to torch's pinned memory, and is no work for the thread that trains
        until = time.perf_counter() + step_seconds
        while (now := time.perf_counter()) < until:
            time.sleep(0.001)
            late, slept = late + time.perf_counter() - now - 0.001, slept + 1
    return Reading(seconds, cpu, late / slept * 1e3, waited / num_batches)


def pictures(source: str, size: int, number: int = 16) -> list[np.ndarray]:
    """The first images of a folder that are large enough, cropped and shrunk as preparation does."""
    found = []
    for path in sorted(Path(source).rglob("*")):
        if path.is_file() and path.suffix.lower() in (".jpg", ".jpeg", ".png"):
            pixels = decode_image(path.read_bytes()).pixels
            if min(pixels.shape[:2]) >= size:
                found.append(resize_area(largest_central_crop(pixels), size))
        if len(found) == number:
            break
    return found


def show_order() -> None:
    """Milliseconds a step, by the number of shards."""
    for num_shards in (1_000, 100_000):
        order = SampleOrder((1000,) * num_shards, 256, 64, 4096, 0)
        for world_size in (8, 1):
            order.batch(0, 0, world_size)
            start = time.perf_counter()
            for step in range(1, 201):
                order.batch(step, 0, world_size)
            took, size = (time.perf_counter() - start) / 200 * 1e3, 256 // world_size
            print(f"order: {took:.2f} ms a step for a worker's {size} samples at {num_shards:,} shards")


def main() -> None:
    """Write shards, measure in turns, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", required=True, help="images at least as large as the stage")
    parser.add_argument("--stage", choices=GOALS, default="256-1024")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batches", type=int, default=8, help="measured a way, round and figure, of 32 images")
    options = parser.parse_args()
    goal, cores = GOALS[options.stage]
    scaled = goal / cores * options.processes
    low_size, high_size = map(int, options.stage.split("-"))
    keep_freed_memory()  # as every worker of a training does
    torch.set_num_threads(1)
    show_order()
    with tempfile.TemporaryDirectory() as folder:
        data = write_shards(Path(folder), options.stage, [64] * 4, images=pictures(options.source, high_size))
        config = override(
            small_stage(low_size, high_size, 8, 10, 1), batch_size=BATCH, augmentation__blur_probability=0.5
        )
        split = open_training_split(data, config)

        def in_threads() -> Iterator[Any]:
            """As it was: two threads of the training process decode and make floats."""
            for batch in batches_from(split, override(config, placement__decoding_processes=0), 0, 0, 1):
                yield to_float(batch.high)

        def in_processes() -> Iterator[Any]:
            chosen = override(config, placement__decoding_processes=options.processes)
            return batches_from(split, chosen, 0, 0, 1)

        def in_loader() -> Iterator[Any]:
            loader = DataLoader(
                Batches(split, config),
                batch_size=None,
                sampler=range(10**6),  # type: ignore[arg-type]  # any iterable
                num_workers=options.processes,
                worker_init_fn=lambda _: keep_freed_memory(),
            )
            return iter(loader)

        ways: dict[str, Callable[[], Iterator[Any]]] = {
            "threads": in_threads,
            "processes": in_processes,
            "DataLoader": in_loader,
        }
        rounds: list[dict[str, Reading]] = []
        for _ in range(options.rounds):
            found = {}
            for name, make in ways.items():
                batches = make()
                found[name] = read(batches, options.batches, BATCH / scaled)
                del batches
            rounds.append(found)
        for name in ways:
            values = [found[name] for found in rounds]
            cpu, waiting = (statistics.median(getattr(v, figure) for v in values) for figure in ("cpu", "waiting"))
            print(
                f"{name}: {BATCH / statistics.median(v.seconds for v in values):.0f} images/s,"
                f" {cpu * 1e3:.2f} ms of CPU an image ({goal:.0f} images/s take {goal * cpu:.1f} cores, {cores} are"
                f" allowed), 1 ms oversleeps by {statistics.median(v.oversleep for v in values):.2f} ms; at"
                f" {scaled:.0f} images/s a step waits {waiting * 1e3:.1f} ms, {100 * waiting * goal / BATCH:.1f}% of"
                f" one at the goal, {BATCH / goal * 1e3:.0f} ms"
            )
        for name in ("threads", "DataLoader"):
            ratio = statistics.median(found[name].seconds / found["processes"].seconds for found in rounds)
            late = statistics.median(found[name].oversleep / found["processes"].oversleep for found in rounds)
            print(f"{options.processes} processes against {name}: {ratio:.2f} x as fast, {late:.1f} x as punctual")


if __name__ == "__main__":
    main()
