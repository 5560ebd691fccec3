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
from tests.commands import ROOT, run_sr3, start_sr3
from tests.preparing import prepared_without_ray, some_photos
from tests.processes import wait_for
from tests.ray_head import BIN, ray_head

TOKEN = secrets.token_hex(16)


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    with ray_head(tmp_path_factory.mktemp("head"), "--num-cpus=2", token=TOKEN) as running:
        yield running


@pytest.fixture(scope="module")
def twenty_photos(photos, tmp_path_factory):
    return some_photos(photos, tmp_path_factory.mktemp("photos") / "photos", 20)


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
    return run_sr3(*arguments, environment={**head.environment, **variables})


class Jobs:
    """Jobs that are submitted at once, and their results as each test asks for them."""

    def __init__(self, head, folder: Path) -> None:
        self.folder = folder
        self._head = head
        self._running: dict[str, subprocess.Popen[str]] = {}
        self._done: dict[str, subprocess.CompletedProcess[str]] = {}

    def sr3(self, name: str, *arguments: str) -> None:
        """Submit a command of sr3."""
        self._running[name] = start_sr3("--address", self._head.address, *arguments, environment=self._head.environment)

    def ray(self, name: str, *arguments: str) -> None:
        """Submit a command by Ray's own client."""
        command = [str(BIN / "ray"), "job", "submit", "--address", self._head.address, *arguments]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        self._running[name] = subprocess.Popen(command, env=self._head.environment, cwd=ROOT, **pipes)

    def result(self, name: str) -> subprocess.CompletedProcess[str]:
        """How a job ended, and what its client printed."""
        if name not in self._done:
            process = self._running[name]
            output, errors = process.communicate()
            self._done[name] = subprocess.CompletedProcess(process.args, process.returncode, output, errors)
        return self._done[name]


@pytest.fixture(scope="module")
def jobs(head, twenty_photos, tmp_path_factory):
    """All jobs whose end is asserted, submitted before any of them is awaited; they share two CPUs."""
    folder = tmp_path_factory.mktemp("jobs")
    submitted = Jobs(head, folder)

    def prepare(out: str) -> list[str]:
        return ["prepare", "--source", str(twenty_photos), "--out", str(folder / out), "--stages", "8-16"]

    submitted.sr3("checkout", "--working-dir", str(ROOT), *prepare("checkout"))
    submitted.sr3("nowhere", "prepare", "--source", "/nowhere/at/all", "--out", str(folder), "--stages", "8-16")
    (folder / "old").mkdir()
    (folder / "old" / "config.json").write_text(json.dumps({"format": "sr3-run", "format_version": 99}))
    submitted.sr3("old", "report", str(folder / "old"))
    printed = sr3(head, *prepare("config"), "--print-config")
    (folder / "mine.json").write_text(json.dumps(json.loads(printed.stdout) | {"validation_fraction": 0.5}))
    submitted.sr3("config", "prepare", "--config", str(folder / "mine.json"))
    submitted.ray("ray", "--working-dir", str(ROOT), "--", "python", "-m", "cluster", *prepare("ray"))
    for name, seed in SEEDS.items():
        submitted.sr3(
            name, *prepare(name), "--seed", str(seed), "--samples-per-shard", "2", "--validation-fraction", "0.3"
        )
    return submitted


SEEDS = {"a": 1, "b": 2}
"""Of two jobs that prepare the same photos at once."""


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
    splits = json.loads(manifest.read_text(encoding="utf-8"))["splits"]
    return sum(shard["num_samples"] for shards in splits.values() for shard in shards)


def test_a_command_runs_as_a_job_with_its_log_and_exit_status(head, jobs):
    done = jobs.result("checkout")
    assert done.returncode == 0, done.stdout + done.stderr
    assert samples_in(jobs.folder / "checkout" / "8-16" / "manifest.json") == 20
    assert done.stdout.count("20 images in") == 1, "the log is followed, and no line is printed twice"
    job = job_in(done.stdout)
    listed = sr3(head, "jobs", "--address", head.address)
    assert re.search(rf"{job}\b.*SUCCEEDED", listed.stdout)
    log = sr3(head, "logs", job, RAY_ADDRESS=head.address)
    assert "20 images in" in log.stdout
    for text in (info(head, job), listed.stdout, log.stdout, done.stdout, done.stderr):
        assert TOKEN not in text, "the token came by the environment and must stay there"


def test_what_fails_on_the_cluster_passes_its_exit_status_and_message_on(jobs):
    done = jobs.result("nowhere")
    assert done.returncode == 1
    assert "/nowhere/at/all" in done.stdout, "the job's own log says what is missing"
    done = jobs.result("old")
    assert done.returncode == 2, "a run of another version: wrong use, which is 2 there and here"
    assert "run format version 99" in done.stdout


def test_a_config_file_travels_with_the_job(jobs):
    done = jobs.result("config")
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((jobs.folder / "config" / "8-16" / "manifest.json").read_text())["splits"]["validation"]


def test_rays_own_submission_runs_the_same_command(jobs):
    done = jobs.result("ray")
    assert done.returncode == 0, done.stdout + done.stderr
    assert samples_in(jobs.folder / "ray" / "8-16" / "manifest.json") == 20


def test_jobs_at_once_are_each_right(twenty_photos, jobs):
    """On the same CPUs: none sees another's configuration, files or log."""
    for name, seed in SEEDS.items():
        done = jobs.result(name)
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"in {jobs.folder / name}\n" in done.stdout
        config = PrepareConfig(
            source=str(twenty_photos),
            out=str(jobs.folder / f"{name}-alone"),
            stages=("8-16",),
            seed=seed,
            samples_per_shard=2,
            validation_fraction=0.3,
        )
        assert shard_bytes(jobs.folder / name / "8-16") == shard_bytes(prepared_without_ray(config))
    assert shard_bytes(jobs.folder / "a" / "8-16") != shard_bytes(jobs.folder / "b" / "8-16")


def test_without_the_token_nothing_is_told(head):
    done = sr3(head, "jobs", "--address", head.address, RAY_AUTH_MODE="disabled", RAY_AUTH_TOKEN="")
    assert done.returncode == 1
    assert "RAY_AUTH_TOKEN" in done.stderr


def test_ctrl_c_stops_the_job_and_says_so(head, many_photos, tmp_path):
    out = tmp_path / "data"
    arguments = ["prepare", "--source", str(many_photos), "--out", str(out), "--stages", "8-16", "--keep-duplicates"]
    arguments += ["--samples-per-shard", "100"]
    following = start_sr3("--address", head.address, *arguments, environment=head.environment)
    wait_for(lambda: following.poll() is not None or list(out.glob("8-16/*.tar")))
    assert following.poll() is None, following.communicate()
    following.send_signal(signal.SIGINT)
    output, errors = following.communicate()
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
    following = start_sr3("logs", job, "--follow", "--address", head.address, environment=head.environment)
    stopped = sr3(head, "stop", job, "--address", head.address)
    assert stopped.stdout.strip() == f"{job}: stopped"
    output, errors = following.communicate()
    assert following.returncode == 130, output + errors
    assert sr3(head, "stop", "sr3-no-such-job", "--address", head.address).returncode == 2


def shard_bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.tar")}
