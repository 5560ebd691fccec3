"""Samples a second into a training loop: our reader against plain webdataset with its shuffle buffer, same shards.

    python tests/benchmarks/bench_ingest.py --source DIR [--stage 64-256] [--rounds 5] [--batches 20]

Both read the same shards, decode the same PNGs with the same decoder, make the same float batches, in one process; they
take turns and the median ratio of a round is printed, since machines drift: by wall time, where ours reads ahead with
two threads, and by CPU time, which other work on the machine changes least. Ours also mirrors half of the images. Then:
time to the first batch of a run resumed at step 10^6.
"""

import argparse
import glob
import itertools
import logging
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

os.environ.update(RAY_AUTH_MODE="disabled", RAY_USAGE_STATS_ENABLED="0", RAY_DATA_DISABLE_PROGRESS_BARS="1")
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import ray
import webdataset

from pipelines.ingest.batches import batches_from
from pipelines.ingest.pixel_batch import PixelBatch
from pipelines.ingest.split_reader import open_training_split
from pipelines.prepare.preparation import prepare
from pipelines.settings.prepare import PrepareConfig
from pipelines.settings.presets import small_stage
from pipelines.shards.records import read_record
from sr3core.batch import Batch
from sr3core.config import override
from sr3core.images.pixels import to_float


def plain_webdataset(folder: str, batch_size: int) -> Iterator[Batch]:
    """What one would write with webdataset alone: shards shuffled, a buffer of 1000, no state to resume from."""
    shards = sorted(glob.glob(f"{folder}/train-*.tar"))
    dataset = webdataset.WebDataset(shards, shardshuffle=100, seed=0).shuffle(1000).repeat()  # type: ignore[attr-defined]
    pairs = []
    for index, sample in enumerate(dataset):
        members = {name: data for name, data in sample.items() if not name.startswith("__")}
        record = read_record(sample["__key__"], members)
        pairs.append((record.low, record.high))
        if len(pairs) == batch_size:
            low, high = (to_float(np.stack(images)) for images in zip(*pairs, strict=True))
            yield Batch(low, high, tuple(range(index, index + batch_size)))
            pairs = []


def seconds_a_sample(batches: Iterator[Batch | PixelBatch], num_batches: int) -> np.ndarray:
    """Wall and CPU seconds, after one batch of warm-up."""
    next(batches)
    start = np.array([time.perf_counter(), time.process_time()])
    count = sum(len(batch.to("cpu").positions) for batch in itertools.islice(batches, num_batches))
    return (np.array([time.perf_counter(), time.process_time()]) - start) / count


def main() -> None:
    """Prepare, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", required=True, help="a hundred images or more, at least as large as the stage")
    parser.add_argument("--stage", default="64-256")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, default=20, help="measured a side and round, of 32 samples")
    options = parser.parse_args()
    low_size, high_size = map(int, options.stage.split("-"))
    with tempfile.TemporaryDirectory() as folder:
        ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        prepare(PrepareConfig(source=options.source, out=folder, stages=(options.stage,), samples_per_shard=100))
        ray.shutdown()
        config = override(small_stage(low_size, high_size, 8, 10, 1), batch_size=32, shuffle_window=1000)
        reader = open_training_split(folder, config)
        ratios = []
        for number in range(options.rounds):
            ours = seconds_a_sample(batches_from(reader, config, number * 1000, 0, 1), options.batches)
            theirs = seconds_a_sample(plain_webdataset(f"{folder}/{options.stage}", 32), options.batches)
            ratios.append(theirs / ours)
            for clock, index in (("wall", 0), ("CPU", 1)):
                print(
                    f"round {number}, samples a {clock} second: ours {1 / ours[index]:.0f}, webdataset"
                    f" {1 / theirs[index]:.0f}, ratio {ratios[-1][index]:.2f}"
                )
        wall, cpu = (statistics.median(values) for values in zip(*ratios, strict=True))
        print(f"median ratio {wall:.2f} by wall, {cpu:.2f} by CPU time ({len(reader.shards)} shards); wanted 1")
        start = time.perf_counter()
        next(batches_from(open_training_split(folder, config), config, 10**6, 0, 1))
        print(f"first batch at step 10^6: {time.perf_counter() - start:.3f} s; wanted 1 s")


if __name__ == "__main__":
    main()
