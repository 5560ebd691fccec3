"""Samples a second into a training loop: our reader against plain webdataset with its shuffle buffer, same shards.

    python tests/benchmarks/bench_ingest.py --source DIR [--rounds 5]

Both read the same shards, decode the same PNGs, make the same float batches, in one process; they take turns and the
median ratio of a round is printed, since machines drift. Then: time to the first batch of a run resumed at step 10^6.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator

import numpy as np
import ray

from pipelines.config import PrepareConfig
from pipelines.ingest import batches_from, open_training_split
from pipelines.preprocess import prepare
from pipelines.presets import small_stage
from pipelines.records import read_record
from sr3core.config import override
from sr3core.images import to_float
from sr3core.training import Batch


def plain_webdataset(folder: str, batch_size: int) -> Iterator[Batch]:
    """What one would write with webdataset alone: shards shuffled, a buffer of 1000, no state to resume from."""
    import glob

    import webdataset

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


def samples_per_second(batches: Iterator[Batch], num_batches: int) -> float:
    """Speed after one batch of warm-up."""
    next(batches)
    start = time.perf_counter()
    count = sum(len(next(batches).positions) for _ in range(num_batches))
    return count / (time.perf_counter() - start)


def main() -> None:
    """Prepare, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", required=True)
    parser.add_argument("--stage", default="64-256")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, default=20)
    options = parser.parse_args()
    low_size, high_size = map(int, options.stage.split("-"))
    with tempfile.TemporaryDirectory() as folder:
        ray.init("local", log_to_driver=False)
        prepare(PrepareConfig(source=options.source, out=folder, stages=(options.stage,), samples_per_shard=100))
        ray.shutdown()
        config = override(small_stage(low_size, high_size, 8, 10, 1), batch_size=32, shuffle_window=1000)
        reader = open_training_split(folder, config)
        ratios = []
        for number in range(options.rounds):
            ours = samples_per_second(batches_from(reader, config, number * 1000, 0, 1), options.batches)
            theirs = samples_per_second(plain_webdataset(f"{folder}/{options.stage}", 32), options.batches)
            ratios.append(ours / theirs)
            print(f"round {number}: ours {ours:.0f}, webdataset {theirs:.0f} samples/s, ratio {ratios[-1]:.2f}")
        print(f"median ratio {statistics.median(ratios):.2f} ({len(reader.shards)} shards of {options.stage})")
        start = time.perf_counter()
        next(batches_from(open_training_split(folder, config), config, 10**6, 0, 1))
        print(f"first batch at step 10^6: {time.perf_counter() - start:.3f} s")


if __name__ == "__main__":
    main()
