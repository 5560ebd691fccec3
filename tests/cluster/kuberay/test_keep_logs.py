"""cluster/docker/keep-logs.sh, the sidecar that saves Ray's logs: a real sh, a real rsync, a real signal."""

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[3] / "cluster" / "docker" / "keep-logs.sh"
OLD = time.time() - 20 * 86400


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    if shutil.which("rsync") is None:
        pytest.skip("rsync is not installed")
    folder = tmp_path / "ray" / "session_2026-01-01_00-00-00_1_1" / "logs"
    (folder / "old").mkdir(parents=True)
    (tmp_path / "ray" / "session_latest").symlink_to(folder.parent.name)
    (folder / "job-driver-1.log").write_text("a line\n")
    return folder


def until(holds: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 60
    while not holds():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < end, "the script has not done it within a minute"
        time.sleep(0.02)


def test_what_is_written_last_is_saved_when_the_pod_ends(logs, tmp_path):
    kept = tmp_path / "shared" / "sr3-head-x7k2p" / logs.parent.name / "job-driver-1.log"
    forgotten = tmp_path / "shared" / "sr3-worker-old" / "raylet.out"
    forgotten.parent.mkdir(parents=True)
    forgotten.write_text("of a pod that is long gone")
    os.utime(forgotten, (OLD, OLD))
    environment = {**os.environ, "POD": "sr3-head-x7k2p", "KEEP_LOGS_SECONDS": "3600"}
    command = ["sh", str(SCRIPT), str(tmp_path / "ray"), str(tmp_path / "shared")]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        until(lambda: kept.exists() and kept.read_text() == "a line\n" and not forgotten.exists(), process)
        with (logs / "job-driver-1.log").open("a") as file:
            file.write("the last words\n")
        process.terminate()
        assert process.wait(60) == 0, process.stderr.read()
    finally:
        process.kill()
    assert kept.read_text() == "a line\nthe last words\n"


def test_without_the_pods_name_it_says_so(tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "POD"}
    done = subprocess.run(
        ["sh", str(SCRIPT), str(tmp_path), str(tmp_path)], env=environment, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert "the name of the pod" in done.stderr
