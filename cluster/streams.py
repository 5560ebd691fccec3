"""The output of `sr3`: every text can be printed, and a reader who has seen enough is no error."""

import io
import logging
import os
import select
import sys
import threading
from typing import Any


def open_streams() -> None:
    """Let both streams take any text, also where they are closed or of a narrow encoding, and log to the first."""
    if sys.stdout is None:  # `sr3 … >&-`; the descriptor is taken, or the next file would receive what is printed
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    for name in ("matplotlib", "botocore", "torch"):  # or they tell of caches, and of credentials that were found
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[LineHandler(sys.stdout)])


class LineHandler(logging.StreamHandler):
    """Log lines; if they cannot be written, the command ends as if it had printed them."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Raise the stream's error in the main thread; another thread leaves it to that."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif threading.current_thread() is threading.main_thread():
            raise error


def reader_has_left() -> bool:
    """Whether a stream is a pipe that nobody reads any more, as in `sr3 --help | head`."""
    return any(_is_broken(stream) for stream in (sys.stdout, sys.stderr))


def drop_unwritten() -> None:
    """Drop what a stream cannot write, or Python would fail on it once more at its end."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _is_broken(stream: Any) -> bool:
    try:
        poll = select.poll()
        poll.register(stream.fileno(), 0)
        return any(events & select.POLLERR for _, events in poll.poll(0))
    except (OSError, ValueError):  # it has no descriptor, or a closed one
        return False
