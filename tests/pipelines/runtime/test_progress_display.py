"""Progress: bars that are redrawn on a terminal, and plain lines in a log."""

import os
import pty
import re
import subprocess
import sys
import time

from pipelines.runtime.progress_display import Counted, ProgressDisplay, duration
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
STAGES = """
import logging, sys
from pipelines.runtime.progress_display import print_progress
from pipelines.training.stage_progress import StageProgress
logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
show = print_progress()
show(StageProgress("16-32", 5, 10, "0:40 left"), StageProgress("32-64", 0, 10, "waits for " + 20 * "nodes "))
logging.info("a line of a log")
show(StageProgress("16-32", 6, 10, "0:32 left"), StageProgress("32-64", 1, 10, "0:40 left"))
show(StageProgress("16-32", 7, 10, "0:24 left"), StageProgress("32-64", 2, 10, "0:36 left"))
show.end()
"""
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm"}


def on_a_terminal(program: str, columns: int) -> str:
    """What a program writes to a terminal of so many columns."""
    ours, theirs = pty.openpty()
    environment = {**ENVIRONMENT, "COLUMNS": str(columns)}
    with subprocess.Popen([sys.executable, "-c", program], env=environment, stderr=theirs) as process:
        process.wait()
    os.close(theirs)
    text = os.read(ours, 65536).decode()
    os.close(ours)
    return text


def test_a_log_gets_plain_lines_now_and_then_and_at_the_end():
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=ENVIRONMENT, capture_output=True, text=True, check=True)
    first, *_, last = done.stderr.splitlines()
    assert first.startswith("upscale: 0:0")
    assert first.endswith(" left, 0/2 photos, 3/12 tiles of those in progress")
    assert last == "upscale: 0:00 left, 2/2 photos, 1 failed"
    assert len(done.stderr.splitlines()) == 2, "what comes within ten seconds is left out"
    assert "\r" not in done.stderr


def test_the_last_line_stands_once_on_a_terminal():
    """Whoever shows progress may say at the end what it has said already, also behind lines of a log."""
    again = STAGES.replace("show.end()", "done = StageProgress('16-32', 10, 10, 'done')\nshow(done)\n")
    text = on_a_terminal(again + "logging.info('a stage has ended')\nshow(done)\n", 80)
    assert len(re.findall("16-32: done", text)) == 1


def test_a_terminal_gets_a_bar_that_is_redrawn_within_its_width():
    text = on_a_terminal(PROGRAM, 50)
    frames = text.replace("\r\n", "\n").replace("\r\x1b[1A", "\r").split("\r\x1b[K")[1:]
    assert len(frames) == 3
    assert frames[0].startswith("[#.........] upscale: 0:0")
    assert "left, 0/2 photos" in frames[0], "what matters most is not cut off"
    assert frames[0].endswith("..\n")
    assert max(len(frame.strip()) for frame in frames) < 50
    assert all(frame.endswith("\n") for frame in frames), "what else is printed begins a line of its own"


def test_each_stage_has_a_line_that_stays_in_place_below_the_log():
    up, line = "\r\x1b[2A", "\x1b[K"
    assert on_a_terminal(STAGES, 80).replace("\r\n", "\n") == (
        f"\r{line}[#####.....] 16-32: 0:40 left, step 5/10\n"
        f"{line}[..........] 32-64: waits for nodes nodes nodes nodes nodes nodes nodes nodes..\n"
        f"{up}\x1b[Ja line of a log\n"
        f"\r{line}[######....] 16-32: 0:32 left, step 6/10\n{line}[#.........] 32-64: 0:40 left, step 1/10\n"
        f"{up}{line}[#######...] 16-32: 0:24 left, step 7/10\n{line}[##........] 32-64: 0:36 left, step 2/10\n"
    )


def test_a_log_says_once_that_something_has_ended(capsys, monkeypatch):
    monkeypatch.setattr("pipelines.runtime.progress_display._LOG_EVERY_SECONDS", 0.0)
    show, first, second = ProgressDisplay(), Counted("a", 2, "things"), Counted("b", 2, "things")
    for first.done, second.done in ((2, 0), (2, 1), (2, 2)):
        show(first, second)
    lines = [re.sub(r"[?\d:]+ left", "…", line) for line in capsys.readouterr().err.splitlines()]
    assert lines == ["a: …, 2/2 things", "b: …, 0/2 things", "b: …, 1/2 things", "b: …, 2/2 things"]


def test_things_that_are_counted_have_a_time_left():
    progress = Counted("evaluate", 28, "measurements")
    assert progress.line() == "evaluate: ? left, 0/28 measurements"
    progress.done, progress.started = 7, time.monotonic() - 20
    assert (progress.share, progress.line()) == (0.25, "evaluate: 1:00 left, 7/28 measurements")


def test_durations():
    assert [duration(seconds) for seconds in (0, 59.6, 61, 3725)] == ["0:00", "1:00", "1:01", "1:02:05"]
    assert duration(11 * 86400 + 61) == "11 d 0:01:01"
