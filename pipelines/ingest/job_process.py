"""A process that runs jobs of ingest: `python -m pipelines.ingest.job_process CONNECTION MEMORY`, file descriptors.

It is started as a program of its own. A fork of a process that has threads, a GPU and Ray would be unsafe, and
multiprocessing's spawn would import the main module of whoever trains, and Ray and torch with it.
"""

import mmap
import os
import signal
import subprocess
import sys
import threading
from multiprocessing.connection import Connection, Pipe
from typing import Any

import numpy as np

from pipelines.ingest.decoding import Job, ReadingSetup, Workplace
from pipelines.runtime.allocator import keep_freed_memory


class ProcessDiedError(Exception):
    """The process ended before it answered."""


class JobProcess:
    """The parent's side of one process.

    Args:
        setup: what it reads.
        memory: file descriptor of the batches' memory.
    """

    def __init__(self, setup: ReadingSetup, memory: int) -> None:
        self._connection, theirs = Pipe()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "pipelines.ingest.job_process", str(theirs.fileno()), str(memory)],
                pass_fds=(theirs.fileno(), memory),
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"},
                stdin=subprocess.DEVNULL,
            )
        self._setup: ReadingSetup | None = setup
        self._ending = threading.Lock()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def call(self, job: Job) -> Any:
        """Run a job there and return what it returns, or raise what it raises.

        Raises:
            ProcessDiedError: the process ended, for example killed because memory ran out.
        """
        try:
            if self._setup is not None:
                self._connection.send(self._setup)
                self._setup = None
            self._connection.send(job)
            error, answer = self._connection.recv()
        except (EOFError, OSError) as failure:
            raise ProcessDiedError(f"exit status {self._process.wait()}") from failure
        if error is not None:
            raise error
        return answer

    def end(self) -> None:
        """End it at once, whatever it does: it keeps nothing, and an unfinished download is cleared away by others.

        Several threads may call this, and more than once: the pool that closes, and a thread that replaces it.
        """
        self._process.kill()
        self._process.wait()
        with self._ending:  # two threads in close() would close one descriptor twice, or another's that took its number
            self._connection.close()


def main() -> None:
    """Run jobs until the parent closes the connection or ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of a terminal: the parent decides
    os.nice(5)  # what works ahead gives way to the thread that launches the GPU's kernels
    keep_freed_memory()
    connection = Connection(int(sys.argv[1]))
    try:
        setup: ReadingSetup = connection.recv()
        with mmap.mmap(int(sys.argv[2]), setup.layout.num_bytes) as memory:
            workplace = Workplace(setup, np.frombuffer(memory, np.uint8))
            while True:
                _answer(connection, connection.recv(), workplace)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        os._exit(0)  # the memory is still in use by arrays


def _answer(connection: Connection, job: Job, workplace: Workplace) -> None:
    try:
        answer = None, job.run(workplace)
    except Exception as error:  # noqa: BLE001  # raised again by JobProcess.call
        answer = error, None
    connection.send(answer)


if __name__ == "__main__":
    main()
