"""What is printed where it cannot be, and what is told of errors that come from outside the program."""

import os
import re
import subprocess
import sys

import pytest

from cluster.cli import main
from cluster.exits import DONE, FAILURE, PIPE_CLOSED
from tests.commands import ROOT, clean_environment, sr3_command

PRINT = """
import sys, logging
from cluster.streams import open_streams
open_streams()
print("caf\\udce9 \\u2192 \\xfc")
logging.getLogger("x").info("caf\\udce9 \\u2192 \\xfc")
sys.stdout.flush()
"""


@pytest.mark.parametrize(
    "variables",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "latin-1"},
        {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
        {"LC_ALL": "C"},
    ],
)
def test_every_text_can_be_printed_in_every_encoding(variables):
    """A file's name of invalid UTF-8 included: Python holds its bytes as lone surrogates."""
    environment = clean_environment(**variables)
    done = subprocess.run([sys.executable, "-c", PRINT], env=environment, capture_output=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, b"")
    assert len(done.stdout.splitlines()) == 2


LOG = """
import logging, sys
from cluster import cli
def run(*_):
    while True:
        logging.getLogger("x").info("line")
cli._run = run
sys.exit(cli.main(["status", "x"]))
"""


def test_a_log_that_nobody_reads_to_its_end_is_no_error():
    """`sr3 evaluate … | head -1`: logging prints a stack of its own for each line that it cannot write."""
    command, pipe = [sys.executable, "-c", LOG], subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=pipe) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"line\n"
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == PIPE_CLOSED


def test_a_full_disk_behind_the_output_is_told_in_a_line():
    with open("/dev/full", "wb") as full:
        done = subprocess.run(sr3_command("--version"), stdout=full, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    assert done.returncode == FAILURE
    assert done.stderr == "sr3 --version: No space left on device; free space there, and run the same command again\n"


def test_closed_streams_do_not_matter():
    for closed in (1, 2):
        done = subprocess.run(sr3_command("--version"), preexec_fn=lambda fd=closed: os.close(fd), cwd=ROOT)
        assert done.returncode == DONE


def test_an_error_of_the_system_is_a_line(monkeypatch, capsys):
    def fail(*_: object) -> int:
        return len(os.listdir("/nowhere"))

    monkeypatch.setattr("cluster.cli._run", fail)
    assert main(["status", "x"]) == FAILURE
    assert capsys.readouterr().err == "sr3 status: /nowhere: No such file or directory\n"


def test_a_fault_of_the_program_says_what_to_report(monkeypatch):
    def fail(*_: object) -> int:
        return {}["key"]

    monkeypatch.setattr("cluster.cli._run", fail)
    with pytest.raises(KeyError) as raised:
        main(["status", "x"])
    assert raised.value.__notes__ == [
        "sr3 status: this is a fault of sr3 itself. Please report it, with the lines above, the command line and what"
        " `sr3 doctor` prints."
    ]


def test_a_package_that_does_not_fit_is_a_line(monkeypatch, capsys):
    def fail(*_: object) -> int:
        from numpy import a_name_of_another_version  # type: ignore[attr-defined]  # noqa: F401

        return 0

    monkeypatch.setattr("cluster.cli._run", fail)
    assert main(["status", "x"]) == FAILURE
    assert re.fullmatch(
        r"sr3 status: cannot import name .* from 'numpy' .*; `sr3 doctor` compares .*\n", capsys.readouterr().err
    )
