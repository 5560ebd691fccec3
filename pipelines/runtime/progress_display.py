"""Progress on a terminal (a bar and a line, redrawn) and in a job's log (a plain line now and then)."""

import logging
import shutil
import sys
import time
from dataclasses import dataclass, field
from typing import Protocol

_LOG_EVERY_SECONDS = 10.0
_BAR_WIDTH = 10


class Progress(Protocol):
    """What can be displayed as progress."""

    @property
    def share(self) -> float:
        """Fraction that is done, in [0, 1]; 1 ends the display."""
        ...

    def line(self) -> str:
        """The progress in one line, the time left first: a narrow terminal shows only its beginning."""
        ...


@dataclass(slots=True)
class Counted:
    """Progress of things that are done one after another, at about the same speed."""

    title: str
    """The kind of work, in a word."""
    total: int
    unit: str
    """What is counted, in the plural."""
    done: int = 0
    started: float = field(default_factory=time.monotonic)
    """Monotonic time of the start."""

    @property
    def share(self) -> float:
        """Fraction that is done."""
        return self.done / self.total if self.total else 1.0

    def line(self) -> str:
        """`evaluate: 0:40 left, 12/28 measurements`."""
        seconds = (time.monotonic() - self.started) * (self.total - self.done) / self.done if self.done else None
        left = "?" if seconds is None else duration(seconds)
        return f"{self.title}: {left} left, {self.done}/{self.total} {self.unit}"


class ProgressDisplay:
    """A line each of what is in progress: on a terminal they are redrawn in place, in a log they are repeated."""

    def __init__(self) -> None:
        self._logged, self._drawn = 0.0, 0
        self._last: tuple[str, ...] = ()
        self._ended: set[str] = set()
        self._is_terminal = sys.stderr.isatty()
        if self._is_terminal:
            for handler in logging.getLogger().handlers:
                handler.addFilter(self._make_way)

    def __call__(self, *progress: Progress) -> None:
        """Show the newest state; in a log only every ten seconds, at the end of all, and of what has ended once."""
        done = all(each.share >= 1 for each in progress)
        if self._is_terminal:
            if not done or self._drawn or self._last != tuple(each.line() for each in progress):
                self._draw(progress)  # a call after the end, with what stands there already, draws nothing
            if done:
                self._last = tuple(each.line() for each in progress)
                self.end()
        elif done or time.monotonic() - self._logged >= _LOG_EVERY_SECONDS:
            self._logged = time.monotonic()
            self._log(progress)

    def _log(self, progress: tuple[Progress, ...]) -> None:
        for each in progress:
            line = each.line()
            if line not in self._ended:
                print(line, file=sys.stderr, flush=True)
            if each.share >= 1:
                self._ended.add(line)

    def end(self) -> None:
        """Leave the lines as they are."""
        self._drawn = 0
        for handler in logging.getLogger().handlers:
            handler.removeFilter(self._make_way)

    def clear(self) -> None:
        """Take the lines from the terminal, so that something else can be printed; the next call draws them again."""
        if self._drawn:
            print(self._to_first_line(), end="\033[J", file=sys.stderr, flush=True)
        self._drawn = 0

    def _make_way(self, record: logging.LogRecord) -> bool:
        self.clear()
        return True

    def _draw(self, progress: tuple[Progress, ...]) -> None:
        width = shutil.get_terminal_size().columns - 1  # a character in the last column makes some terminals wrap
        lines = [f"{_bar(each.share)} {each.line()}" for each in progress]
        cut = [line if len(line) <= width else f"{line[: width - 2]}.." for line in lines]
        # The cursor waits below them: whatever else is printed, such as an error, begins a line of its own.
        print(self._to_first_line() + "".join(f"\033[K{line}\n" for line in cut), end="", file=sys.stderr, flush=True)
        self._drawn = len(lines)

    def _to_first_line(self) -> str:
        return f"\r\033[{self._drawn}A" if self._drawn else "\r"


def print_progress() -> ProgressDisplay:
    """A display on standard error."""
    return ProgressDisplay()


def _bar(share: float) -> str:
    done = round(share * _BAR_WIDTH)
    return f"[{'#' * done}{'.' * (_BAR_WIDTH - done)}]"  # in ASCII, which every terminal shows


def duration(seconds: float) -> str:
    """Format seconds as 4 d 1:02:03, 1:02:03 or 2:03."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours}:{minutes:02d}:{seconds:02d}"
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
