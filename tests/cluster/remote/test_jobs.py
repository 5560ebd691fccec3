"""Following and stopping jobs on a real Ray head: what happens when the connection is lost, or Ctrl-C comes twice."""

import re
import signal
import socket
import subprocess
import threading
from contextlib import suppress
from pathlib import Path

import pytest
from ray.job_submission import JobDetails

from cluster.remote.jobs import exit_status
from tests.processes import wait_for
from tests.ray_head import BIN, ray_head

ROOT = Path(__file__).resolve().parents[3]
TALK = """
import pathlib, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("line 1\\nline 2", flush=True)
while not pathlib.Path(sys.argv[1]).exists():
    time.sleep(0.05)
print("line 3", flush=True)
sys.exit(3)
"""
"""A job that ignores SIGTERM, and ends with status 3 once a file is there."""


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    with ray_head(tmp_path_factory.mktemp("head"), "--num-cpus=1") as running:
        yield running


@pytest.fixture
def talking(head, tmp_path):
    """A running job of TALK, and the file that ends it."""
    from ray.job_submission import JobSubmissionClient

    (tmp_path / "talk.py").write_text(TALK)
    end = tmp_path / "end"
    client = JobSubmissionClient(head.address)
    variables = {"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "60"}}
    job = client.submit_job(entrypoint=f"python {tmp_path / 'talk.py'} {end}", runtime_env=variables)
    yield job, end
    end.touch()
    wait_for(lambda: client.get_job_status(job).is_terminal())


class Proxy:
    """Passes connections on to a port; cut() ends all that there are, as a lost network does."""

    def __init__(self, port: int) -> None:
        self._to, self._open = port, []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        cut, self._open = self._open, []
        for end in cut:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._to))
                self._open += [near, far]
                for source, target in ((near, far), (far, near)):
                    threading.Thread(target=self._pump, args=(source, target), daemon=True).start()

    @staticmethod
    def _pump(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)


def start(head, *arguments: str) -> subprocess.Popen[str]:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([str(BIN / "python"), *arguments], env=head.environment, cwd=ROOT, **pipes)


def read_until(stream, text: str) -> str:
    """What a stream says until a line with this text, which is included."""
    said = ""
    for line in stream:
        said += line
        if text in line:
            return said
    raise AssertionError(f"{text!r} was never printed: {said}")


def test_a_log_is_followed_across_a_lost_connection_and_no_line_is_printed_twice(head, talking):
    job, end = talking
    proxy = Proxy(int(head.address.rpartition(":")[2]))
    following = start(head, "-m", "cluster", "logs", job, "--follow", "--address", proxy.address)
    said = read_until(following.stdout, "line 2")
    proxy.cut()
    said += read_until(following.stdout, "trying again")
    end.touch()
    rest, errors = following.communicate(timeout=120)
    proxy.close()
    assert following.returncode == 3, rest + errors
    assert re.findall(r"^line \d$", said + rest, re.MULTILINE) == ["line 1", "line 2", "line 3"]


def test_a_second_ctrl_c_returns_at_once_and_says_how_to_follow_again(head, talking):
    job, _ = talking
    program = (
        "import sys; from cluster.remote.jobs import connect, follow_or_stop;"
        " sys.exit(follow_or_stop(connect(sys.argv[1]), sys.argv[2], 'sr3 logs THIS --follow'))"
    )
    following = start(head, "-c", program, head.address, job)
    read_until(following.stdout, "line 2")
    following.send_signal(signal.SIGINT)
    said = read_until(following.stderr, "Ctrl-C again")
    assert f"stopping {job}" in said
    following.send_signal(signal.SIGINT)
    _, errors = following.communicate(timeout=60)
    assert following.returncode == 130, errors
    assert f"not waiting for {job} to stop, which it will; follow it again with `sr3 logs THIS --follow`" in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize("words", ["/usr/bin/python: No module named cluster", "No module named 'cluster'"])
def test_a_head_of_another_python_is_named_with_the_remedy(words, capsys):
    details = {"type": "SUBMISSION", "entrypoint": "python -m cluster train", "status": "FAILED", "driver_exit_code": 1}
    assert exit_status(JobDetails(**details, message=f"failed with exit code 1, last available logs: {words}")) == 1
    assert "the head runs another Python" in capsys.readouterr().err
    assert exit_status(JobDetails(**details, message="No module named 'clusters_of_mine'")) == 1
    assert capsys.readouterr().err == ""
