"""Processes that compete with the test for a place on a storage."""

import subprocess
import sys

from tests.commands import ROOT


def start(code: str, *arguments: str) -> subprocess.Popen:
    """Run Python code in a process of its own that imports the project; its input and output are pipes."""
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
