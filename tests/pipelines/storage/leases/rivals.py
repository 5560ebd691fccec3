"""Processes that compete with the test for a place on a storage."""

import subprocess
import sys

from tests.commands import ROOT


def start(code: str, *arguments: str) -> subprocess.Popen:
    """Run Python code in a process of its own that imports the project; its input and output are pipes."""
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)


WORKER = """
# argv: folder, work, part. Works there until its input ends or it is killed.
import sys
from pipelines.storage.leases.folder_lease import working_in
with working_in(*sys.argv[1:]):
    print("at work", flush=True)
    sys.stdin.read()
"""


def at_work(*arguments: str) -> subprocess.Popen:
    """A process that is at work in a folder, until its input is closed or it is killed."""
    holder = start(WORKER, *arguments)
    assert holder.stdout.readline() == "at work\n"
    return holder
