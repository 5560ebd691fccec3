"""What takes long says that it still goes on: a line that is removed on a terminal, lines in a log."""

import os
import pty
import re
import subprocess
import sys

from tests.commands import ROOT

WAIT = """
import logging, sys, time
from pipelines.runtime import waiting
from cluster.streams import open_streams
open_streams()
waiting._FIRST_LOG_SECONDS = waiting._LONGEST_LOG_SECONDS = waiting._REDRAW_EVERY_SECONDS = 0.05
shown, write = [], waiting._Line._write
waiting._Line._write = lambda line, text: (write(line, text), shown.append(text))
with waiting.waiting_for(lambda: "starting Ray"):
    while len(shown) < 2:
        time.sleep(0.01)
    logging.info("found")
print("done")
"""
"""Waits until the line was written twice, logs something, and ends."""


def test_a_log_gets_lines():
    done = subprocess.run([sys.executable, "-c", WAIT], cwd=ROOT, capture_output=True, text=True, check=True)
    assert re.fullmatch(r"(still starting Ray, 0:00\n){2,}", done.stderr)
    assert done.stdout == "found\ndone\n"


def test_a_terminal_gets_a_line_that_is_removed():
    ours, theirs = pty.openpty()
    process = subprocess.Popen([sys.executable, "-c", WAIT], cwd=ROOT, stdout=theirs, stderr=theirs)
    os.close(theirs)
    said = b""
    while True:
        try:
            said += os.read(ours, 1000)
        except OSError:  # the other end is closed
            break
    assert process.wait() == 0
    os.close(ours)
    text = said.decode()
    assert "\r\x1b[Kstill starting Ray, 0:00" in text
    # What is on the screen in the end: of each line what follows its last removal.
    assert [line.rpartition("\x1b[K")[2].strip() for line in text.split("\n") if line.strip()] == ["found", "done"]
