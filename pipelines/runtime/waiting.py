"""What takes long and tells nothing of itself, such as the start of Ray: a line says that it is still going on."""

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pipelines.runtime.progress_display import duration

_FIRST_LOG_SECONDS, _LONGEST_LOG_SECONDS = 10.0, 300.0
_REDRAW_EVERY_SECONDS = 1.0
_shown: "list[_Line]" = []
"""The lines of this process that are on the terminal."""


@contextmanager
def waiting_for(what: str | Callable[[], str]) -> Iterator[None]:
    """Tell, while the block runs, that it still does: `still starting Ray, 0:12`.

    On a terminal it is one line, redrawn every second and removed at the end; in a log, a line after ten seconds, and
    then after twice the time before, up to five minutes.

    Args:
        what: what is going on, after "still", or a function that says so now.
    """
    line = _Line(what)
    thread = threading.Thread(target=line.repeat, name="waiting", daemon=True)
    thread.start()
    try:
        yield
    finally:
        line.over.set()
        thread.join()


def make_way(_record: logging.LogRecord | None = None) -> bool:
    """Remove the lines from the terminal before something else is printed; what is logged does so by itself."""
    for line in _shown:
        line.make_way()
    return True


class _Line:
    """The line, which makes way for what is printed meanwhile."""

    def __init__(self, what: str | Callable[[], str]) -> None:
        self._what, self._started = what, time.monotonic()
        self._is_terminal = sys.stderr.isatty()
        self._lock, self._gave_way = threading.Lock(), 0.0
        self.over = threading.Event()

    def repeat(self) -> None:
        """Write it until the work is over, and remove it from a terminal."""
        if self._is_terminal:
            self._redraw()
        else:
            self._log()

    def make_way(self) -> None:
        """Remove it, for a moment."""
        self._gave_way = time.monotonic()
        self._write("\r\033[K")

    def _redraw(self) -> None:
        handlers = logging.getLogger().handlers
        for handler in handlers:
            handler.addFilter(make_way)
        _shown.append(self)
        while not self.over.wait(_REDRAW_EVERY_SECONDS):
            if time.monotonic() - self._gave_way >= _REDRAW_EVERY_SECONDS:  # else what comes may not be written yet
                self._write(f"\r\033[K{self._text()}")
        _shown.remove(self)
        for handler in handlers:
            handler.removeFilter(make_way)
        self._write("\r\033[K")

    def _log(self) -> None:
        seconds = _FIRST_LOG_SECONDS
        while not self.over.wait(seconds):
            seconds = min(2 * seconds, _LONGEST_LOG_SECONDS)
            self._write(f"{self._text()}\n")

    def _text(self) -> str:
        what = self._what if isinstance(self._what, str) else self._what()
        return f"still {what}, {duration(time.monotonic() - self._started)}"

    def _write(self, text: str) -> None:
        with self._lock:
            print(text, end="", file=sys.stderr, flush=True)
