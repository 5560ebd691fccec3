"""Stopping a command: Ctrl-C and SIGTERM take one path, a second signal ends the process at once."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from cluster.exits import INTERRUPTED, TERMINATED

SIGNALS = (signal.SIGINT, signal.SIGTERM)
_received: list[int] = []
"""The signal that stopped what `listen` was last called for."""


class Terminated(KeyboardInterrupt):
    """SIGTERM, from `kill`, a job server or Kubernetes; what cleans up after Ctrl-C cleans up after this too."""


@contextmanager
def stoppable() -> Iterator[None]:
    """Within the block, the first SIGINT raises KeyboardInterrupt and the first SIGTERM raises Terminated."""
    with _restored_afterwards():
        listen()
        yield


def listen() -> None:
    """Raise at the next signal (again); the one after that ends the process. A signal that is ignored stays so."""
    if threading.current_thread() is threading.main_thread():
        _received.clear()
        for number in SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:  # as a shell leaves SIGINT to what it runs in the background
                signal.signal(number, _stop)


@contextmanager
def handlers_kept() -> Iterator[None]:
    """Keep this process's handlers through a block that starts Ray.

    Ray installs two of its own for SIGTERM: one in Python, which ends the process with status 15 or 1, and one in C++
    over it, which prints a stack and aborts the process three seconds later.

    Raises:
        Terminated: SIGTERM came during the block, and one of Ray's handlers took it.
    """
    with _restored_afterwards():
        try:
            yield
        except SystemExit as end:
            signal.alarm(0)  # the abort that the handler in C++ has set
            raise Terminated from end


def is_by_sigterm(stop: KeyboardInterrupt) -> bool:
    """Whether SIGTERM stopped a command. While Ray waits in C++, it raises a KeyboardInterrupt of its own for any."""
    return isinstance(stop, Terminated) or signal.SIGTERM in _received


def exit_status(stop: KeyboardInterrupt) -> int:
    """The exit status of a command that was stopped."""
    return TERMINATED if is_by_sigterm(stop) else INTERRUPTED


@contextmanager
def _restored_afterwards() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # which alone can have handlers
        yield
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:  # a handler that was not installed from Python
                signal.signal(number, handler)


def _stop(number: int, frame: FrameType | None) -> None:
    for each in SIGNALS:
        signal.signal(each, signal.SIG_DFL)
    _received.append(number)
    raise Terminated if number == signal.SIGTERM else KeyboardInterrupt
