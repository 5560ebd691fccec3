"""How fast images become shards, against the script that everyone writes: Pool + Pillow + webdataset.ShardWriter.

    python tests/benchmarks/bench_prepare.py [--data FOLDER] [--images N] [--workers N] [--only NAME]

Each case runs both sides in turn, several times, on the same files and cores, and takes the median of the ratios:
a noisy machine slows both. The script does the same operations with Pillow: decode, orientation, largest central crop,
BOX to HR, BICUBIC to LR, PNG. Its BOX is not the exact area at fractional ratios; that is not counted against it.

What was predicted and what was done about the largest part is printed with the numbers. Wall time says little on a
machine that does other work at the same time; the share of it in which the workers are inside a shard says whether they
wait for Ray. Memory: bench_prepare_memory.py.
"""

import argparse
import io
import json
import logging
import multiprocessing
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from multiprocessing.pool import Pool
from pathlib import Path

os.environ.update(RAY_AUTH_MODE="disabled", RAY_USAGE_STATS_ENABLED="0", RAY_DATA_DISABLE_PROGRESS_BARS="1")
os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")  # a worker has one core; Ray sets the same
ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import webdataset  # noqa: E402
from PIL import Image, ImageOps  # noqa: E402

from pipelines.prepare.plan.dealing import plan_shards  # noqa: E402
from pipelines.prepare.preparation import prepare  # noqa: E402
from pipelines.prepare.sources.listing import open_source  # noqa: E402
from pipelines.prepare.writing.progress import PrepareProgress  # noqa: E402
from pipelines.prepare.writing.shard_task import ShardTask, write_shard  # noqa: E402
from pipelines.settings.prepare import PrepareConfig  # noqa: E402
from pipelines.storage.uris import join  # noqa: E402

PREDICTED = """Predicted before measuring, from single codecs (milliseconds an image, one thread):
  256x256 JPEG -> 64-256: Pillow decodes in 1 ms and encodes PNG in 28; so the time is PNG encoding, 5 times to gain.
  1024x1024 JPEG -> 64-256: decoding 12.6 (simplejpeg 3.7), BOX 5, encoding 28: 3 to 4 times to gain.
  1024x1024 PNG -> 64-256: decoding 35 (libspng 26) is most of what is left: 2 times to gain."""

DONE = {
    "read": "one read a file; its sha256 is counted here",
    "decode": "libjpeg-turbo by simplejpeg, 12 -> 3 ms for 1024x1024; kornia_rs for PNG, 24 -> 11 ms (libspng: 17)",
    "resize": "float32 products of whole numbers, in bands; freed memory is kept: 7 -> 3.5 ms for 1024 -> 256",
    "encode": "one PNG filter and Huffman coding alone, 28 -> 1.8 ms for 256x256 and 64x64, 5% larger",
    "write": "one buffered write a member, its sha256 on the way; two syncs a shard",
}
"""What was done about each part of the time, for the report."""


def quiet(_: PrepareProgress) -> None:
    """Progress that nobody reads."""


# --- the script that everyone writes ----------------------------------------------------------------------------------


def pillow_shard(job: tuple[str, list[str], int, int]) -> int:
    """One process's part: decode, crop, resize, encode, write, with Pillow and webdataset."""
    pattern, paths, low_size, high_size = job
    with webdataset.ShardWriter(pattern, maxcount=1000, verbose=0) as writer:  # type: ignore[attr-defined]
        for path in paths:
            image = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
            side = min(image.size)
            left, top = (image.width - side) // 2, (image.height - side) // 2
            image = image.crop((left, top, left + side, top + side))
            high = image.resize((high_size, high_size), Image.Resampling.BOX)
            low = high.resize((low_size, low_size), Image.Resampling.BICUBIC)
            sample = {"__key__": Path(path).stem, "json": {"name": path, "width": image.width}}
            for name, picture in (("hr.png", high), ("lr.png", low)):
                buffer = io.BytesIO()
                picture.save(buffer, "PNG")
                sample[name] = buffer.getvalue()
            writer.write(sample)
    return len(paths)


def run_pool(pool: Pool, paths: list[str], out: Path, workers: int, low_size: int, high_size: int) -> None:
    parts = [paths[worker::workers] for worker in range(workers)]
    jobs = [(str(out / f"{worker}-%06d.tar"), part, low_size, high_size) for worker, part in enumerate(parts)]
    assert sum(pool.map(pillow_shard, jobs, chunksize=1)) == len(paths)


# --- ours -------------------------------------------------------------------------------------------------------------


def config_for(source: Path, out: Path, stage: str, num_images: int, workers: int) -> PrepareConfig:
    """Four shards a worker; as many workers as the cluster has CPUs, which is `workers`."""
    shard = max(num_images // (workers * 4), 1)
    return PrepareConfig(
        source=str(source), out=str(out), stages=(stage,), samples_per_shard=shard, validation_fraction=0.0
    )


def write_one(job: tuple[PrepareConfig, ShardTask]) -> float:
    return sum(write_shard(*job).seconds.values())


def run_in_processes(pool: Pool, config: PrepareConfig) -> float:
    """The same functions without Ray, what Ray's overhead is measured against: seconds in all parts of the work."""
    plan, lines = plan_shards(config, open_source(config.source))
    lines.save(join(config.out, "plan.jsonl"))
    tasks = [ShardTask(shard, config.stages) for shard in plan.shards]
    return sum(pool.map(write_one, [(config, task) for task in tasks], chunksize=1))


# --- the cases --------------------------------------------------------------------------------------------------------


def grow(paths: Iterable[Path], folder: Path, count: int, tag: Callable[[bytes, int], bytes]) -> list[str]:
    """Repeat real images until there are `count`, each with a comment that makes its bytes its own."""
    originals = [path.read_bytes() for path in paths]
    suffix = ".png" if originals[0].startswith(b"\x89PNG") else ".jpg"
    folder.mkdir(parents=True)
    names = []
    for number in range(count):
        path = folder / f"{number:06d}{suffix}"
        path.write_bytes(tag(originals[number % len(originals)], number))
        names.append(str(path))
    return names


def tag_jpeg(data: bytes, number: int) -> bytes:
    """Insert a comment segment after the start marker."""
    comment = b"%08d" % number
    return data[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + data[2:]


def tag_png(data: bytes, number: int) -> bytes:
    """Append bytes after the end chunk, which no reader minds."""
    return data + b"%08d" % number


def as_png(paths: Iterable[Path], folder: Path) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for path in paths:
        target = folder / f"{path.stem}.png"
        Image.open(path).convert("RGB").save(target)
        made.append(target)
    return made


def cases(data: Path, scratch: Path, count: int) -> dict[str, tuple[list[str], str]]:
    faces = sorted((data / "faces_train" / "ffhq256").glob("*.jpg"))
    large = sorted(
        [*(data / "faces_eval" / "senate1024").glob("*.jpg"), *(data / "faces_eval" / "celebahq1024").glob("*.jpg")]
    )
    photos = sorted((data / "natural_train" / "nips17_ccby").glob("*"))[:300]
    few = max(count // 4, 16)
    return {
        "256x256 JPEG, 64-256": (grow(faces, scratch / "a", count, tag_jpeg), "64-256"),
        "299x299 PNG or JPEG, 64-256": (
            grow(photos, scratch / "b", count, tag_png if photos[0].suffix == ".png" else tag_jpeg),
            "64-256",
        ),
        "1024x1024 JPEG, 64-256": (grow(large, scratch / "c", few * 2, tag_jpeg), "64-256"),
        "1024x1024 PNG, 64-256": (grow(as_png(large[:24], scratch / "png"), scratch / "d", few, tag_png), "64-256"),
        "1024x1024 PNG, 256-1024": (
            grow(as_png(large[:24], scratch / "png"), scratch / "e", few // 2, tag_png),
            "256-1024",
        ),
    }


def cpu_seconds(without: set[int] = frozenset()) -> float:  # type: ignore[assignment]
    """CPU time of this process and of all below it, but for some: what contention on the machine changes least."""
    parents: dict[int, int] = {}
    ticks: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        parents[int(entry.name)], ticks[int(entry.name)] = int(fields[1]), int(fields[11]) + int(fields[12])
    total, todo = 0, [os.getpid()]
    while todo:
        process = todo.pop()
        total += ticks[process]
        todo += [child for child, parent in parents.items() if parent == process and child not in without]
    return total / os.sysconf("SC_CLK_TCK")


def timed(work: Callable[[], object], without: set[int]) -> tuple[float, float]:
    """Wall and CPU seconds of some work."""
    start, cpu = time.perf_counter(), cpu_seconds(without)
    work()
    return time.perf_counter() - start, cpu_seconds(without) - cpu


def compare(
    pool: Pool, name: str, paths: list[str], stage: str, scratch: Path, workers: int, rounds: int
) -> dict[str, dict[str, float]]:
    """Run both sides and the bare functions in turn, on processes that are up already, and print what was found."""
    low_size, high_size = (int(size) for size in stage.split("-"))
    runs: dict[str, list[tuple[float, float]]] = {"pool": [], "ray": [], "bare": []}
    parts: Counter[str] = Counter()
    busy: dict[str, list[float]] = {"ray": [], "bare": []}
    source = Path(paths[0]).parent
    pool_processes = {process.pid for process in multiprocessing.active_children() if process.pid}

    def with_ray(config: PrepareConfig) -> None:
        seconds = prepare(config, quiet).seconds_of
        parts.update(seconds)
        busy["ray"].append(sum(seconds.values()))

    for _ in range(rounds):
        folders = {kind: scratch / "out" / kind for kind in runs}
        for folder in folders.values():
            folder.mkdir(parents=True)
        config = {kind: config_for(source, folder, stage, len(paths), workers) for kind, folder in folders.items()}
        work: dict[str, Callable[[], object]] = {
            "pool": lambda: run_pool(pool, paths, folders["pool"], workers, low_size, high_size),  # noqa: B023
            "ray": lambda: with_ray(config["ray"]),  # noqa: B023
            "bare": lambda: busy["bare"].append(run_in_processes(pool, config["bare"])),  # noqa: B023
        }
        for kind, measured in runs.items():
            measured.append(timed(work[kind], pool_processes if kind == "ray" else set()))
        shutil.rmtree(scratch / "out")
    report = {}
    print(f"\n{name}: {len(paths)} images, {workers} processes, {rounds} rounds, medians (each round)")
    for index, clock in enumerate(("wall", "CPU")):
        seconds = {kind: [run[index] for run in measured] for kind, measured in runs.items()}
        rates = {kind: len(paths) / statistics.median(values) for kind, values in seconds.items()}
        ratios = [a / b for a, b in zip(seconds["pool"], seconds["ray"], strict=True)]
        overheads = [a / b - 1 for a, b in zip(seconds["ray"], seconds["bare"], strict=True)]
        report[clock] = {"ratio": statistics.median(ratios), "overhead": statistics.median(overheads)}
        speeds = f"Pool + Pillow + ShardWriter {rates['pool']:.1f}, sr3 prepare {rates['ray']:.1f}"
        each_ratio, each_overhead = (
            ", ".join(f"{value:.2f}" for value in values) for values in (ratios, [o * 100 for o in overheads])
        )
        print(
            f"  images a {clock} second: {speeds}: ratio {report[clock]['ratio']:.2f} ({each_ratio}), wanted 1.5\n"
            f"    without Ray {rates['bare']:.1f}: overhead {report[clock]['overhead']:+.1%} ({each_overhead}),"
            " allowed 10%"
        )
    shares = {
        kind: statistics.median(a / wall / workers for a, (wall, _) in zip(busy[kind], runs[kind], strict=True))
        for kind in busy
    }
    print(f"  workers inside a shard: {shares['ray']:.0%} of the wall time with Ray, {shares['bare']:.0%} without")
    each = ", ".join(f"{part} {1000 * value / len(paths) / rounds:.2f}" for part, value in parts.items())
    largest = parts.most_common(1)[0][0]
    print(f"  milliseconds an image: {each}; the largest is {largest}: {DONE[largest]}", flush=True)
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--images", type=int, default=800)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="cases whose names hold this")
    options = parser.parse_args()
    if not options.data.is_dir():
        raise SystemExit(
            f"--data: {options.data} does not exist; name a folder with faces_train/ffhq256 and the others"
        )
    import ray

    print(PREDICTED)
    scratch = Path(tempfile.mkdtemp(prefix="bench-prepare-"))
    try:
        ray.init(
            "local", num_cpus=options.workers, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR
        )
        warm = grow(
            sorted((options.data / "faces_train" / "ffhq256").glob("*.jpg"))[:20], scratch / "warm", 20, tag_jpeg
        )
        prepare(config_for(Path(warm[0]).parent, scratch / "warm-out", "64-256", 20, options.workers), quiet)
        pool = multiprocessing.get_context("spawn").Pool(options.workers)
        run_pool(pool, warm, scratch, options.workers, 64, 256)
        results = {}
        for name, (paths, stage) in cases(options.data, scratch, options.images).items():
            if options.only in name:
                results[name] = compare(pool, name, paths, stage, scratch, options.workers, options.rounds)
        pool.terminate()
        ray.shutdown()
        print("\n" + json.dumps(results))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    main()
