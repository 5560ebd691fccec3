"""Progress: a bar that is redrawn on a terminal, and plain lines in a log."""

import os
import pty
import subprocess
import sys

from pipelines.runtime.progress_display import duration
from tests.commands import ROOT

PROGRAM = """
from pipelines.runtime.progress_display import print_progress
from pipelines.sampling.upscale import UpscaleProgress
show, progress = print_progress(), UpscaleProgress(num_photos=2)
progress.at_work = [(3, 12, 0.25)]
show(progress)
progress.photos_done, progress.num_failed = 1, 1
show(progress)
progress.photos_done, progress.at_work = 2, []
show(progress)
"""
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "120"}


def test_a_log_gets_plain_lines_now_and_then_and_at_the_end():
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=ENVIRONMENT, capture_output=True, text=True, check=True)
    first, *_, last = done.stderr.splitlines()
    assert first.startswith("upscale: 0/2 photos, 3/12 tiles of those in progress, 0:")
    assert last == "upscale: 2/2 photos, 1 failed, 0:00 left"
    assert len(done.stderr.splitlines()) == 2, "what comes within ten seconds is left out"
    assert "\r" not in done.stderr


def test_a_terminal_gets_a_bar_that_is_redrawn():
    ours, theirs = pty.openpty()
    with subprocess.Popen([sys.executable, "-c", PROGRAM], env=ENVIRONMENT, stderr=theirs) as process:
        process.wait()
    os.close(theirs)
    text = os.read(ours, 65536).decode()
    os.close(ours)
    frames = text.split("\r\x1b[K")[1:]
    assert len(frames) == 3
    assert all("━" in frame for frame in frames)
    assert "3/12 tiles" in frames[0]
    assert "\n" not in frames[0] + frames[1]
    assert frames[2].endswith("\n")


def test_durations():
    assert [duration(seconds) for seconds in (0, 59.6, 61, 3725)] == ["0:00", "1:00", "1:01", "1:02:05"]
    assert duration(11 * 86400 + 61) == "11 d 0:01:01"
