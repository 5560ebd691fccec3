"""`ray job submit --working-dir . -- sr3 …` on a running Ray cluster runs the same commands."""

import json
import os
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import psutil
import pytest

from tests.processes import wait_for

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A Ray head of its own, with a job server on loopback; ended by its own process group."""
    ports = {name: free_port() for name in ("gcs", "dashboard", "agent", "client")}
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_TMPDIR": str(tmp_path_factory.mktemp("r"))}
    environment.pop("RAY_ADDRESS", None)
    command = [str(BIN / "ray"), "start", "--head", "--block", "--num-cpus=2", f"--port={ports['gcs']}"]
    command += [f"--dashboard-port={ports['dashboard']}", "--dashboard-host=127.0.0.1", "--node-ip-address=127.0.0.1"]
    command += [f"--ray-client-server-port={ports['client']}", "--object-store-memory=200000000"]
    command += [f"--dashboard-agent-listen-port={ports['agent']}"]  # the default is taken by the session's own Ray
    command += ["--disable-usage-stats", f"--temp-dir=/tmp/sr3-{ports['gcs']}"]
    head = subprocess.Popen(command, env=environment, start_new_session=True, stdout=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{ports['dashboard']}"
    try:
        wait_for(lambda: head.poll() is not None or takes_jobs(address))
        assert head.poll() is None, "ray start failed"
        yield address, environment
    finally:
        for process in (*psutil.Process(head.pid).children(recursive=True), head):
            process.kill()  # a polite end would drain the node for 30 s
        head.wait(30)


def takes_jobs(address: str) -> bool:
    """Whether a job is accepted; the server answers some seconds before its agents can start one."""
    body = json.dumps({"entrypoint": "true"}).encode()
    request = urllib.request.Request(f"{address}/api/jobs/", body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status == 200
    except OSError:
        return False


def submit(cluster, *command: str) -> subprocess.CompletedProcess[str]:
    address, environment = cluster
    submit_command = [str(BIN / "ray"), "job", "submit", "--address", address, "--working-dir", str(ROOT), "--"]
    return subprocess.run(
        [*submit_command, *command], env=environment, capture_output=True, text=True, timeout=240, cwd=ROOT
    )


def test_a_submitted_preparation_runs_on_the_cluster(cluster, photos, tmp_path):
    (tmp_path / "photos").mkdir()
    for path in sorted(photos.glob("*.jpg"))[:20]:
        (tmp_path / "photos" / path.name).write_bytes(path.read_bytes())
    arguments = ["--source", str(tmp_path / "photos"), "--out", str(tmp_path / "data"), "--stages", "8-16"]
    done = submit(cluster, str(BIN / "python"), "-m", "cluster.cli", "prepare", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    manifest = json.loads((tmp_path / "data" / "8-16" / "manifest.json").read_text())
    assert sum(shard["num_samples"] for shards in manifest["splits"].values() for shard in shards) == 20
    assert "succeeded" in done.stdout


def test_a_command_that_fails_fails_the_job_with_its_message(cluster, tmp_path):
    arguments = ["--source", "/nowhere/at/all", "--out", str(tmp_path), "--stages", "8-16"]
    done = submit(cluster, str(BIN / "sr3"), "prepare", *arguments)
    assert done.returncode != 0
    assert "/nowhere/at/all" in done.stdout
