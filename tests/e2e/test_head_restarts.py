"""GCS fault tolerance with a real Redis: a killed head comes back with its jobs, and the same command resumes."""

import contextlib
import hashlib
import re
import secrets
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from pipelines.settings.prepare import PrepareConfig
from tests.commands import run_sr3
from tests.preparing import prepared_without_ray
from tests.processes import wait_for
from tests.ray_head import BIN, end_node, free_port, ray_head, ray_node

PASSWORD = secrets.token_hex(16)


@pytest.fixture
def redis(tmp_path):
    """A Redis of this test's own; its port."""
    server = shutil.which("redis-server")
    if server is None:
        pytest.skip("redis-server is not installed (apt-get install redis-server), so the head cannot be restarted")
    port = free_port()
    command = [server, "--port", str(port), "--bind", "127.0.0.1", "--requirepass", PASSWORD, "--save", ""]
    with open(tmp_path / "redis.log", "wb") as log:
        process = subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=log)
    wait_for(lambda: answers(port), lambda: process.poll() is None)
    yield port
    process.kill()
    process.wait()


def answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def head(folder: Path, redis: int, port: int):
    """A head whose tables are in Redis, at the same address each time."""
    folder.mkdir()
    options = ["--num-cpus=0", f"--redis-password={PASSWORD}"]
    variables = {"RAY_REDIS_ADDRESS": f"127.0.0.1:{redis}", "RAY_external_storage_namespace": "test"}
    return ray_head(folder, *options, gcs_port=port, **variables)


@contextlib.contextmanager
def worker(folder: Path, port: int, environment: dict[str, str]):
    """A node of two CPUs that waits for its head to come back."""
    command = [str(BIN / "ray"), "start", "--block", f"--address=127.0.0.1:{port}", "--num-cpus=2"]
    command += ["--object-store-memory=100000000", f"--dashboard-agent-listen-port={free_port()}"]
    variables = {**environment, "RAY_gcs_rpc_server_reconnect_timeout_s": "120"}
    log = folder / "worker.log"
    with ray_node(command, variables, log, lambda: "Ray runtime started." in log.read_text()) as process:
        yield process


def sums(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.tar")}


@pytest.mark.slow
def test_a_killed_head_comes_back_with_its_jobs_and_the_same_command_goes_on(photos, redis, tmp_path):
    source, out, port = tmp_path / "photos", tmp_path / "data", free_port()
    source.mkdir()
    for copy in range(4):
        for path in photos.glob("*.jpg"):
            (source / f"{copy}-{path.name}").symlink_to(path)
    command = ["prepare", "--source", str(source), "--out", str(out), "--stages", "8-16"]
    command += ["--samples-per-shard", "20", "--keep-duplicates"]
    with head(tmp_path / "first", redis, port) as first, worker(tmp_path, port, first.environment) as node:
        started = run_sr3("--address", first.address, "--detach", *command, environment=first.environment)
        assert started.returncode == 0, started.stdout + started.stderr
        job = re.search(r"sr3-prepare-\d{8}-\d{6}-\w{4}", started.stdout)[0]
        wait_for(lambda: list(out.glob("8-16/*.tar")), lambda: node.poll() is None)
        end_node(first.process)
        before = sums(out / "8-16")
        assert not (out / "8-16" / "manifest.json").exists(), "the head was to be lost in the middle"
        # On one machine Ray takes the worker that waits for a running head, where this file names its address.
        Path(f"/tmp/sr3-{port}/ray_current_cluster").unlink(missing_ok=True)
        with head(tmp_path / "second", redis, port) as second:
            assert node.poll() is None, "the worker's node has outlived its head"
            ask = ("jobs", "--address", second.address)
            wait_for(  # the new head knows the jobs of the old one, once it has read them
                lambda: job in run_sr3(*ask, environment=second.environment).stdout, lambda: node.poll() is None
            )
            done = run_sr3("--address", second.address, *command, environment=second.environment)
            assert done.returncode == 0, done.stdout + done.stderr
    after = sums(out / "8-16")
    assert before.items() <= after.items(), "what was finished is kept"
    alone = str(tmp_path / "alone")
    config = PrepareConfig(source=str(source), out=alone, stages=("8-16",), samples_per_shard=20, keep_duplicates=True)
    assert after == sums(prepared_without_ray(config))
