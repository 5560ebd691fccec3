"""What takes long and tells nothing of itself, such as the start of Ray: a line says that it is still going on."""

import logging
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from pipelines.runtime.progress_display import duration

_LOG_EVERY_SECONDS = 10.0
_REDRAW_EVERY_SECONDS = 1.0


@contextmanager
def waiting_for(what: str) -> Iterator[None]:
    """Tell, while the block runs, that it still does: `still starting Ray, 0:12`.

    On a terminal it is one line, redrawn every second and removed at the end; in a log, a line every ten seconds.

    Args:
        what: what is going on, after "still".
    """
    line = _Line(what)
    thread = threading.Thread(target=line.repeat, name="waiting", daemon=True)
    thread.start()
    try:
        yield
    finally:
        line.over.set()
        thread.join()


class _Line:
    """The line, which makes way for what is logged meanwhile."""

    def __init__(self, what: str) -> None:
        self._what, self._started = what, time.monotonic()
        self._is_terminal = sys.stderr.isatty()
        self._lock, self._gave_way = threading.Lock(), 0.0
        self.over = threading.Event()

    def repeat(self) -> None:
        """Write it until the work is over, and remove it from a terminal."""
        handlers = logging.getLogger().handlers if self._is_terminal else []
        for handler in handlers:
            handler.addFilter(self._make_way)
        while not self.over.wait(_REDRAW_EVERY_SECONDS if self._is_terminal else _LOG_EVERY_SECONDS):
            if time.monotonic() - self._gave_way < _REDRAW_EVERY_SECONDS:
                continue  # what it made way for may not be written yet
            text = f"still {self._what}, {duration(time.monotonic() - self._started)}"
            self._write(f"\r\033[K{text}" if self._is_terminal else f"{text}\n")
        for handler in handlers:
            handler.removeFilter(self._make_way)
        if self._is_terminal:
            self._write("\r\033[K")

    def _make_way(self, record: logging.LogRecord) -> bool:
        self._gave_way = time.monotonic()
        self._write("\r\033[K")
        return True

    def _write(self, text: str) -> None:
        with self._lock:
            print(text, end="", file=sys.stderr, flush=True)
