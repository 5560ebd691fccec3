"""Ray's object store at its smallest and overfull: the same bytes, by spilling, or a message that states the remedy."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.settings.prepare import PrepareConfig
from tests.commands import ROOT, clean_environment
from tests.preparing import prepared_without_ray, some_photos

SMALLEST_BYTES = 78_643_200
"""Ray's OBJECT_STORE_MINIMUM_MEMORY_BYTES."""

CROWDED = """
# argv: bytes of the store, a command of sr3. Twice as much as fits is in the store, and stays referenced.
import json, sys
import numpy as np, ray
from tests.ray_head import init_ray
init_ray(num_cpus=2, object_store_memory=int(sys.argv[1]), include_dashboard=False, log_to_driver=False,
         logging_level="ERROR")
from cluster.cli import main
size = 8_000_000
held = [ray.put(np.full(size, number, np.uint8)) for number in range(2 * int(sys.argv[1]) // size)]
status = main(sys.argv[2:])
intact = all((ray.get(ref) == number).all() for number, ref in enumerate(held))
print("ANSWER", json.dumps({"status": status, "intact": bool(intact)}), flush=True)
"""

FULL = """
# argv: bytes of the store. A disk that is (said to be) full takes no spilled objects.
import sys
import numpy as np, ray
from cluster import cli
from cluster.commands import status
from cluster.session import ray_session
from tests.ray_head import init_ray
def fill(options):
    with ray_session():
        held = [ray.put(np.ones(20_000_000, np.uint8)) for _ in range(30)]
    return 0
init_ray(num_cpus=1, object_store_memory=int(sys.argv[1]), include_dashboard=False, log_to_driver=False,
         logging_level="ERROR")
status.run = fill  # any command: what is tested is how its errors are reported
sys.exit(cli.main(["status", "."]))
"""


def run(code: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, str(SMALLEST_BYTES), *arguments]
    return subprocess.run(command, cwd=ROOT, env=clean_environment(**variables), capture_output=True, text=True)


def answer(done: subprocess.CompletedProcess[str]) -> dict:
    answers = [line for line in done.stdout.splitlines() if line.startswith("ANSWER")]
    assert answers, done.stdout[-2000:] + done.stderr[-2000:]
    return json.loads(answers[-1].removeprefix("ANSWER"))


def shard_sums(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.tar")}


def test_a_preparation_with_a_crowded_store_makes_the_bytes_of_one_without_ray(photos, tmp_path):
    source, out, alone = some_photos(photos, tmp_path / "photos", 60), tmp_path / "data", tmp_path / "alone"
    arguments = ["--source", str(source), "--out", str(out), "--stages", "16-64", "--samples-per-shard", "8"]
    done = run(CROWDED, "prepare", *arguments)
    assert answer(done) == {"status": 0, "intact": True}, done.stdout + done.stderr
    config = PrepareConfig(source=str(source), out=str(alone), stages=("16-64",), samples_per_shard=8)
    expected = shard_sums(prepared_without_ray(config))
    assert shard_sums(out / "16-64") == expected
    assert len(expected) >= 8


@pytest.fixture(scope="module")
def tiny_cascade(tmp_path_factory):
    from tests.tune.search.tiny_search import write_run

    return write_run(tmp_path_factory.mktemp("cascade") / "run").path


def test_upscaling_with_a_crowded_store_makes_the_same_images(photos, tiny_cascade, tmp_path, ray_session):
    from cluster.cli import main

    source = some_photos(photos, tmp_path / "photos", 3)
    made = {}
    for name in ("crowded", "roomy"):
        arguments = [str(source), "--run", tiny_cascade, "--out", str(tmp_path / name), "--schedule", "2"]
        if name == "crowded":
            assert answer(run(CROWDED, "upscale", *arguments)) == {"status": 0, "intact": True}
        else:
            assert main(["upscale", *arguments]) == 0
        made[name] = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in (tmp_path / name).glob("*.png")}
    assert len(made["roomy"]) == 3
    assert made["crowded"] == made["roomy"]


def test_a_store_that_can_neither_hold_nor_spill_says_what_to_do():
    done = run(FULL, RAY_local_fs_capacity_threshold="0.000001")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Ray's object store is full" in done.stderr
    assert "Traceback" not in done.stderr
