"""`sr3 --address URL COMMAND` and `ray job submit` on a real Ray head with token authentication."""

import json
import re
import secrets
import signal
import subprocess
import urllib.request
from pathlib import Path

import pytest

from pipelines.settings.prepare import PrepareConfig
from tests.commands import ROOT
from tests.preparing import prepared_without_ray
from tests.processes import wait_for
from tests.ray_head import BIN, ray_head

TOKEN = secrets.token_hex(16)


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    with ray_head(tmp_path_factory.mktemp("head"), "--num-cpus=2", token=TOKEN) as running:
        yield running


@pytest.fixture(scope="module")
def twenty_photos(photos, tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for path in sorted(photos.glob("*.jpg"))[:20]:
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


@pytest.fixture
def many_photos(photos, tmp_path):
    """Minutes of work in links to the bundled photos."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for copy in range(20):
        for path in photos.glob("*.jpg"):
            (folder / f"{copy:03d}-{path.name}").symlink_to(path)
    return folder


def sr3(head, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**head.environment, **variables}
    command = [str(BIN / "python"), "-m", "cluster", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280, cwd=ROOT)


def start_sr3(head, *arguments: str) -> subprocess.Popen[str]:
    command = [str(BIN / "python"), "-m", "cluster", *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=head.environment, cwd=ROOT, **pipes)


def job_in(output: str) -> str:
    found = re.search(r"sr3-\w+-\d{8}-\d{6}-\w{4}", output)
    assert found, output
    return found[0]


def info(head, job: str) -> str:
    """Everything that the job server says of a job."""
    request = urllib.request.Request(f"{head.address}/api/jobs/{job}", headers={"Authorization": f"Bearer {TOKEN}"})
    with urllib.request.urlopen(request, timeout=30) as response:
        return response.read().decode()


def samples_in(manifest: Path) -> int:
    splits = json.loads(manifest.read_text())["splits"]
    return sum(shard["num_samples"] for shards in splits.values() for shard in shards)


def test_a_command_runs_as_a_job_with_its_log_and_exit_status(head, twenty_photos, tmp_path):
    arguments = ["prepare", "--source", str(twenty_photos), "--out", str(tmp_path / "data"), "--stages", "8-16"]
    done = sr3(head, "--address", head.address, "--working-dir", str(ROOT), *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    assert samples_in(tmp_path / "data" / "8-16" / "manifest.json") == 20
    assert done.stdout.count("20 images in") == 1, "the log is followed, and no line is printed twice"
    job = job_in(done.stdout)
    listed = sr3(head, "jobs", "--address", head.address)
    assert job in listed.stdout
    assert "SUCCEEDED" in listed.stdout
    log = sr3(head, "logs", job, RAY_ADDRESS=head.address)
    assert "20 images in" in log.stdout
    for text in (info(head, job), listed.stdout, log.stdout, done.stdout, done.stderr):
        assert TOKEN not in text, "the token came by the environment and must stay there"


def test_what_fails_on_the_cluster_passes_its_exit_status_and_message_on(head, tmp_path):
    arguments = ["prepare", "--source", "/nowhere/at/all", "--out", str(tmp_path), "--stages", "8-16"]
    done = sr3(head, *arguments, "--address", head.address)
    assert done.returncode == 1
    assert "/nowhere/at/all" in done.stdout + done.stderr
    (tmp_path / "config.json").write_text(json.dumps({"format": "sr3-run", "format_version": 99}))
    done = sr3(head, "--address", head.address, "report", str(tmp_path))
    assert done.returncode == 2, "a run of another version: wrong use, which is 2 there and here"
    assert "run format version 99" in done.stdout


def test_a_config_file_travels_with_the_job(head, twenty_photos, tmp_path):
    printed = sr3(head, "prepare", "--source", str(twenty_photos), "--out", "/x", "--stages", "8-16", "--print-config")
    config = json.loads(printed.stdout) | {"out": str(tmp_path / "data"), "validation_fraction": 0.5}
    (tmp_path / "mine.json").write_text(json.dumps(config))
    done = sr3(head, "--address", head.address, "prepare", "--config", str(tmp_path / "mine.json"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((tmp_path / "data" / "8-16" / "manifest.json").read_text())["splits"]["validation"]


def test_without_the_token_nothing_is_told(head):
    done = sr3(head, "jobs", "--address", head.address, RAY_AUTH_MODE="disabled", RAY_AUTH_TOKEN="")
    assert done.returncode == 1
    assert "RAY_AUTH_TOKEN" in done.stderr


def test_ctrl_c_stops_the_job_and_says_so(head, many_photos, tmp_path):
    out = tmp_path / "data"
    arguments = ["prepare", "--source", str(many_photos), "--out", str(out), "--stages", "8-16", "--keep-duplicates"]
    arguments += ["--samples-per-shard", "100"]
    following = start_sr3(head, "--address", head.address, *arguments)
    wait_for(lambda: following.poll() is not None or list(out.glob("8-16/*.tar")))
    assert following.poll() is None, following.communicate()
    following.send_signal(signal.SIGINT)
    output, errors = following.communicate(timeout=200)
    assert following.returncode == 130, output + errors
    job = job_in(output)
    assert f"{job} is stopped" in errors
    assert json.loads(info(head, job))["status"] == "STOPPED"
    assert not list(out.glob("8-16/manifest.json")), "it had minutes of work before it"


def test_a_detached_job_is_stopped_by_name(head, many_photos, tmp_path):
    out = tmp_path / "data"
    arguments = ["prepare", "--source", str(many_photos), "--out", str(out), "--stages", "8-16", "--keep-duplicates"]
    started = sr3(head, "--address", head.address, "--detach", *arguments)
    assert started.returncode == 0, started.stderr
    job = job_in(started.stdout)
    assert f"sr3 logs {job} --follow --address {head.address}" in started.stdout
    following = start_sr3(head, "logs", job, "--follow", "--address", head.address)
    stopped = sr3(head, "stop", job, "--address", head.address)
    assert stopped.stdout.strip() == f"{job}: stopped"
    output, errors = following.communicate(timeout=200)
    assert following.returncode == 130, output + errors
    assert sr3(head, "stop", "sr3-no-such-job", "--address", head.address).returncode == 2


def test_rays_own_submission_runs_the_same_command(head, twenty_photos, tmp_path):
    command = [str(BIN / "ray"), "job", "submit", "--address", head.address, "--working-dir", str(ROOT), "--"]
    command += ["python", "-m", "cluster", "prepare", "--source", str(twenty_photos)]
    command += ["--out", str(tmp_path / "data"), "--stages", "8-16"]
    done = subprocess.run(command, env=head.environment, capture_output=True, text=True, timeout=240, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert samples_in(tmp_path / "data" / "8-16" / "manifest.json") == 20


def test_two_jobs_at_once_are_each_right(head, twenty_photos, tmp_path):
    """On the same CPUs: neither sees the other's configuration, files or log."""
    running = {}
    for name, seed in (("a", "1"), ("b", "2")):
        arguments = ["--source", str(twenty_photos), "--out", str(tmp_path / name), "--stages", "8-16", "--seed", seed]
        arguments += ["--samples-per-shard", "2", "--validation-fraction", "0.3"]
        running[name] = start_sr3(head, "--address", head.address, "prepare", *arguments)
    outputs = {name: process.communicate(timeout=280) for name, process in running.items()}
    for name, process in running.items():
        assert process.returncode == 0, outputs[name]
        assert f"in {tmp_path / name}\n" in outputs[name][0]
        config = PrepareConfig(
            source=str(twenty_photos),
            out=str(tmp_path / f"{name}-alone"),
            stages=("8-16",),
            seed={"a": 1, "b": 2}[name],
            samples_per_shard=2,
            validation_fraction=0.3,
        )
        assert shard_bytes(tmp_path / name / "8-16") == shard_bytes(prepared_without_ray(config))
    assert shard_bytes(tmp_path / "a" / "8-16") != shard_bytes(tmp_path / "b" / "8-16")


def shard_bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.tar")}
