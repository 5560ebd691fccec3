"""The `sr3` command in its own process, as users start it.

A command that needs Ray should use that of the tests; otherwise it starts its own, which takes ten seconds:

    def test_something(ray_session, tmp_path):
        done = run_sr3("upscale", ..., "--address", ray_session)
        assert done.returncode == 0, done.stdout + done.stderr

Only tests of a private Ray itself (it hangs, it is killed, its disk is full) omit the address.
"""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def sr3_command(*arguments: str) -> list[str]:
    """The command line of `sr3`."""
    return [sys.executable, "-m", "cluster", *arguments]


def clean_environment(**variables: str) -> dict[str, str]:
    """This process's environment without a cluster's address, and with more variables."""
    return {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"} | variables


def run_sr3(*arguments: str, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    environment = clean_environment() if environment is None else environment
    return subprocess.run(sr3_command(*arguments), env=environment, capture_output=True, text=True, cwd=ROOT)


def start_sr3(*arguments: str, environment: Mapping[str, str] | None = None) -> "subprocess.Popen[str]":
    """Start a command in a process group of its own; both of its streams are pipes."""
    environment = clean_environment() if environment is None else environment
    return subprocess.Popen(
        sr3_command(*arguments),
        env=environment,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
