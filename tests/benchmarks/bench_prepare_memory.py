"""Peak memory of a preparation at 1,000 and at 20,000 images: it has to be flat.

    python tests/benchmarks/bench_prepare_memory.py [--data FOLDER] [--images N N]

Each count runs in a process of its own with a Ray cluster of its own. What names cost the
driver is in bench_scale.py.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.benchmarks.bench_prepare import grow, tag_jpeg  # noqa: E402

MEMORY = """
import json, os, resource, sys, threading, time
import ray
from pathlib import Path
from pipelines.settings.prepare import PrepareConfig
from pipelines.prepare.preparation import prepare
ray.init("local", num_cpus=2, object_store_memory=200_000_000, include_dashboard=False, log_to_driver=False)
peak = [0]
def rss(pid):
    try:
        with open(f"/proc/{pid}/statm") as file:
            return int(file.read().split()[1]) * 4096
    except OSError:
        return 0
def children(root):
    parents = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            stat = (entry / "stat").read_text().rpartition(")")[2].split()
            name = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        parents[int(entry.name)] = (int(stat[1]), name)
    found, todo = [], [root]
    while todo:
        parent = todo.pop()
        below = [pid for pid, (of, _) in parents.items() if of == parent]
        found += [pid for pid in below if parents[pid][1].startswith(b"ray::")]
        todo += below
    return found
def watch():
    while True:
        peak[0] = max(peak[0], max((rss(pid) for pid in children(os.getpid())), default=0))
        time.sleep(0.2)
threading.Thread(target=watch, daemon=True).start()
prepare(PrepareConfig(source=sys.argv[1], out=sys.argv[2], stages=("16-128",), samples_per_shard=500), lambda p: None)
driver = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print("PEAK", json.dumps({"driver": driver / 2**20, "worker": peak[0] / 2**20}))
"""


def measure_memory(data: Path, scratch: Path, counts: list[int]) -> None:
    """Peak memory of the driver and of the largest worker, in processes of their own."""
    faces = sorted((data / "faces_train" / "ffhq128_q50").glob("*.jpg"))
    print("\npeak resident memory, MiB (128x128 JPEG, 16-128)")
    for count in counts:
        folder = scratch / f"memory{count}"
        grow(faces, folder, count, tag_jpeg)
        answer = subprocess.run(
            [sys.executable, "-c", MEMORY, str(folder), str(scratch / f"memory-out{count}")],
            stdout=subprocess.PIPE,  # its errors are seen
            text=True,
            check=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        ).stdout
        peaks = json.loads(next(line for line in answer.splitlines() if line.startswith("PEAK")).removeprefix("PEAK"))
        print(f"  {count:6d} images: driver {peaks['driver']:.0f}, largest worker {peaks['worker']:.0f}", flush=True)
        shutil.rmtree(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--images", type=int, nargs="+", default=[1_000, 20_000])
    options = parser.parse_args()
    if not options.data.is_dir():
        raise SystemExit(f"--data: {options.data} does not exist; name a folder with faces_train/ffhq128_q50")
    scratch = Path(tempfile.mkdtemp(prefix="bench-prepare-memory-"))
    try:
        measure_memory(options.data, scratch, options.images)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    main()
