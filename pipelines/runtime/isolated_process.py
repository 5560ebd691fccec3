"""The process that IsolatedCalls forks: `python -m pipelines.runtime.isolated_process FILE_DESCRIPTOR`."""

import contextlib
import os
import pickle
import signal
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection, Pipe
from pathlib import Path

from pipelines.runtime.guarded_calls import CallLimits, limit_memory, receive


def main() -> None:
    """Make calls until the parent closes the connection or ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of a terminal: the parent decides
    connection = Connection(int(sys.argv[1]))
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            connection.send(_fork(*receive(connection)))


def _fork(function: Callable[..., object], args: tuple, kwargs: dict, limits: CallLimits) -> tuple[bytes | None, int]:
    """The pickled outcome of a call, None if its process ended before, and the exit status of the process."""
    reader, writer = Pipe(duplex=False)
    pid = os.fork()
    if pid == 0:
        reader.close()
        _call(writer, function, args, kwargs, limits)
    writer.close()
    try:
        answer = reader.recv_bytes()
    except (EOFError, OSError):
        answer = None
    reader.close()
    _, status = os.waitpid(pid, 0)
    return answer, status


def _call(writer: Connection, function: Callable[..., object], args: tuple, kwargs: dict, limits: CallLimits) -> None:
    """Call, answer and exit. Too late, the kernel's alarm ends the process, whatever it is doing."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_bytes(b"1000")  # if memory runs out, let it be this process that ends
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, limits.seconds)
    limit_memory(limits.num_bytes)
    try:
        outcome = None, function(*args, **kwargs)
    except Exception as error:  # noqa: BLE001  # raised again by IsolatedCalls.call
        outcome = error, None
    signal.setitimer(signal.ITIMER_REAL, 0)
    writer.send_bytes(pickle.dumps(outcome, pickle.HIGHEST_PROTOCOL))
    os._exit(0)


if __name__ == "__main__":
    main()
