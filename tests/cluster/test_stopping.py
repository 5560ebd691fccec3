"""Signals that stop a command: one path for Ctrl-C and SIGTERM, and no way past the second."""

import os
import signal
import subprocess
import sys

import pytest

from cluster.cli import main
from cluster.exits import INTERRUPTED, TERMINATED
from cluster.stopping import SIGNALS, Terminated, handlers_kept, listen, stoppable
from tests.commands import ROOT

STATUSES = [(signal.SIGINT, INTERRUPTED), (signal.SIGTERM, TERMINATED)]


@pytest.fixture(autouse=True)
def unchanged_handlers():
    """What a test leaves behind is this process's handlers as they were, whatever it did to them."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    assert {number: signal.getsignal(number) for number in SIGNALS} == before


@pytest.mark.parametrize(("number", "status"), STATUSES)
def test_a_signal_ends_a_command_with_its_status_and_says_how_to_resume(number, status, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("pipelines.report.status.status_of", lambda path: signal.raise_signal(number))
    assert main(["status", str(tmp_path)]) == status
    assert capsys.readouterr().err.endswith("; run the same command again\n")


def test_ray_that_waits_hides_no_sigterm(monkeypatch, capsys, tmp_path, ray_session):
    """Interrupted in C++, it raises a KeyboardInterrupt of its own instead of what the handler has raised."""
    import ray

    def stop(pid: int) -> None:
        os.kill(pid, signal.SIGTERM)
        signal.pause()

    def wait_in_ray(path: str) -> None:
        task = ray.remote(num_cpus=0, max_retries=0)(stop).remote(os.getpid())
        try:
            ray.get(task)
        finally:
            ray.cancel(task, force=True)

    monkeypatch.setattr("pipelines.report.status.status_of", wait_in_ray)
    assert main(["status", str(tmp_path)]) == TERMINATED
    assert "stopped by SIGTERM" in capsys.readouterr().err


def test_an_interrupt_while_text_is_executed_ends_with_the_status_and_not_by_the_signal():
    """Imports of dataclasses and of named tuples execute text."""
    done = subprocess.run([sys.executable, "-m", "tests.cluster.interrupted_in_text"], cwd=ROOT, capture_output=True)
    assert done.returncode == INTERRUPTED, done.stderr


def test_handlers_that_others_install_meanwhile_do_not_stay():
    """Ray installs one while it starts; in force until then, it ends the process, which is a stop like any other."""

    def start_and_be_stopped() -> None:
        with handlers_kept():
            signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(number))
            signal.raise_signal(signal.SIGTERM)

    with stoppable():
        ours = signal.getsignal(signal.SIGTERM)
        with pytest.raises(Terminated):
            start_and_be_stopped()
        assert signal.getsignal(signal.SIGTERM) == ours


def test_an_ignored_interrupt_stays_ignored():
    """A shell lets what it runs in the background ignore Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stoppable():
            listen()
            signal.raise_signal(signal.SIGINT)
            with pytest.raises(Terminated):
                signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGINT, before)


SLOW_TO_END = """
import signal
from cluster.stopping import stoppable
with stoppable():
    try:
        print("working", flush=True)
        signal.pause()
    finally:
        print("cleaning up", flush=True)
        signal.pause()
"""


@pytest.mark.parametrize("number", SIGNALS)
def test_a_second_signal_ends_a_command_that_is_still_cleaning_up(number):
    with subprocess.Popen([sys.executable, "-c", SLOW_TO_END], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for said in ("working\n", "cleaning up\n"):
            assert process.stdout.readline() == said
            process.send_signal(number)
        assert process.stdout.read() == ""
    assert process.returncode == -number
