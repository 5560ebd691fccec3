"""Progress on a terminal (a bar and a line) and in a job's log (a plain line now and then)."""

import sys
import time
from collections.abc import Callable
from typing import Protocol

_LOG_EVERY_SECONDS = 10.0
_BAR_WIDTH = 24


class Progress(Protocol):
    """What can be displayed as progress."""

    @property
    def share(self) -> float:
        """Fraction that is done, in [0, 1]; 1 ends the display."""
        ...

    def line(self) -> str:
        """The progress in one line."""
        ...


def print_progress() -> Callable[[Progress], None]:
    """Return a callback that redraws a bar on a terminal, or else prints a line every ten seconds and at the end."""
    last = [0.0]

    def show(progress: Progress) -> None:
        done = progress.share >= 1
        if sys.stderr.isatty():
            print(f"\r\033[K{_bar(progress)}", end="\n" if done else "", file=sys.stderr, flush=True)
        elif done or time.monotonic() - last[0] >= _LOG_EVERY_SECONDS:
            last[0] = time.monotonic()
            print(progress.line(), file=sys.stderr, flush=True)

    return show


def _bar(progress: Progress) -> str:
    """The bar and the line, truncated to the terminal's width."""
    from rich.console import Console
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    console = Console(file=sys.stderr)
    row = Table.grid(padding=(0, 1, 0, 0))
    row.add_column(width=_BAR_WIDTH)
    row.add_column(no_wrap=True, overflow="ellipsis")
    row.add_row(ProgressBar(total=1, completed=progress.share, width=_BAR_WIDTH), progress.line())
    with console.capture() as captured:
        console.print(row)
    return captured.get().rstrip()


def duration(seconds: float) -> str:
    """Format seconds as 4 d 1:02:03, 1:02:03 or 2:03."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours}:{minutes:02d}:{seconds:02d}"
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
