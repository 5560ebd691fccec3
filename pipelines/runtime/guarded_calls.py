"""Calls of code that cannot be trusted to return: decoders, on files from anywhere.

`call_here` makes them in this process, under limits; what exceeds the memory is an exception, and what exceeds the time
ends the process. `IsolatedCalls` makes each in a process of its own, under the same limits, so that whatever happens
to a call is known to be that call's doing.
"""

import faulthandler
import os
import pickle
import resource
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from types import TracebackType
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class CallLimits:
    """What a call may take."""

    num_bytes: int
    """Memory that it may allocate beyond what its process holds. Only Linux counts all of it."""
    seconds: float
    """Time."""


class CallDiedError(Exception):
    """The process of a call ended before the call did.

    Args:
        signal_number: what ended it; 0 if it exited by itself.
    """

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.signal_number = signal_number


def call_here(limits: CallLimits, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function in this process.

    Not for two threads at once: the limits are the process's.

    Raises:
        MemoryError: it allocates more than the limit, and notices. What does not notice ends the process, as does
            taking more than limits.seconds, even in native code that never gives Python its turn.
    """
    before = resource.getrlimit(resource.RLIMIT_DATA)
    faulthandler.dump_traceback_later(limits.seconds, exit=True)
    try:
        limit_memory(limits.num_bytes)
        return function(*args, **kwargs)
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)
        faulthandler.cancel_dump_traceback_later()


def limit_memory(num_bytes: int) -> None:
    """Let this process allocate at most num_bytes more than it has; memory that processes share does not count."""
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = _allocated() + num_bytes
    resource.setrlimit(resource.RLIMIT_DATA, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


def _allocated() -> int:
    """Bytes that count against RLIMIT_DATA: the process's own pages that it can write to."""
    try:
        return int(Path("/proc/self/statm").read_bytes().split()[5]) * resource.getpagesize()
    except OSError:  # not Linux
        return 0


class IsolatedCalls:
    """Makes calls, each in a process of its own. A context manager.

    They are forks of a small process without threads, so that one costs ten milliseconds and not seconds. Functions,
    arguments and results are pickled.
    """

    def __init__(self, limits: CallLimits) -> None:
        self._limits = limits
        self._connection, theirs = Pipe()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "pipelines.runtime.isolated_process", str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"},
                stdin=subprocess.DEVNULL,
            )

    def __enter__(self) -> "IsolatedCalls":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()
        self._process.kill()
        self._process.wait()

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a module's function.

        Raises:
            CallDiedError: its process ended. SIGALRM means that it took too long.
            Exception: whatever it raises.
        """
        self._connection.send((function, args, kwargs, self._limits))
        answer, status = self._connection.recv()
        if answer is None:
            raise CallDiedError(os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0)
        error, result = pickle.loads(answer)
        if error is not None:
            raise error
        return result


def receive(connection: Connection) -> tuple[Callable[..., object], tuple, dict, CallLimits]:
    """The next call that IsolatedCalls sends.

    Raises:
        EOFError: there will be none.
    """
    return connection.recv()
