"""Files on their way to a bucket: a killed process's are deleted by the next one, a living process's are not."""

import os
import subprocess
import sys
from pathlib import Path

from tests.commands import ROOT

WRITER = """
import sys
from pipelines.storage.uris import temporary_path
open(temporary_path("s3://bucket/photo.png"), "wb").close()
print("ready", flush=True)
sys.stdin.read()
"""


def writer(folder: Path) -> subprocess.Popen:
    """A process that is making a file for a bucket."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(folder)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("sr3-*/*/.*photo.png.tmp"))


def test_the_next_process_deletes_what_a_killed_one_left_and_nothing_else(tmp_path: Path) -> None:
    killed, living = writer(tmp_path), writer(tmp_path)
    before = files(tmp_path)
    assert len(before) == 2
    killed.kill()
    killed.wait()
    assert files(tmp_path) == before
    following = writer(tmp_path)
    after = files(tmp_path)
    assert len(after) == 2
    assert len(set(after) & set(before)) == 1, "the living one's"
    for process in (living, following):
        process.communicate("")
        assert process.returncode == 0
    assert not list(tmp_path.glob("sr3-*/*")), "who ends by himself leaves nothing"
