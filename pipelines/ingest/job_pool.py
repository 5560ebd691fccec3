"""Processes that read and decode ahead of training, and what happens when one of them is killed."""

import logging
import mmap
import os
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from types import TracebackType
from typing import Any

import numpy as np

from pipelines.ingest.decoding import Job, ReadingSetup, Workplace
from pipelines.ingest.job_process import JobProcess, ProcessDiedError
from sr3core.errors import Sr3Error

log = logging.getLogger(__name__)

_THREADS_WITHOUT_PROCESSES = 2
_MAX_DEATHS = 3


class JobPool:
    """Runs jobs in processes of their own, or, with none, in threads of this one.

    Args:
        setup: what they read.
        num_processes: how many; 0 for two threads.
        memory: of the batches, shared by several pools.
    """

    def __init__(self, setup: ReadingSetup, num_processes: int, memory: "BatchMemory") -> None:
        self._setup, self._memory = setup, memory
        self._idle: SimpleQueue[JobProcess] = SimpleQueue()
        self._processes = [JobProcess(setup, memory.descriptor) for _ in range(num_processes)]
        for process in self._processes:
            self._idle.put(process)
        self._workplace = None if num_processes else Workplace(setup, memory.array)
        threads = num_processes or _THREADS_WITHOUT_PROCESSES
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="ingest")
        self._closing = False

    def __enter__(self) -> "JobPool":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing = True
        self._threads.shutdown(wait=False, cancel_futures=True)
        for process in self._processes:  # which ends what the threads wait for
            process.end()
        self._threads.shutdown()
        for process in self._processes:  # one that a thread has just started in the place of another
            process.end()

    @property
    def pids(self) -> list[int]:
        """Ids of the processes."""
        return [process.pid for process in self._processes]

    def submit(self, job: Job) -> Future[Any]:
        """Run a job; jobs begin in the order in which they were submitted."""
        return self._threads.submit(self._run, job)

    def _run(self, job: Job) -> Any:
        if self._workplace is not None:
            return job.run(self._workplace)
        for deaths in range(1, _MAX_DEATHS + 1):
            process = self._idle.get()
            try:
                return process.call(job)
            except ProcessDiedError as error:
                if self._closing:
                    raise
                process = self._replace(process)
                if deaths == _MAX_DEATHS:
                    raise Sr3Error(
                        f"{self._setup}: {deaths} processes died one after another while they read {job}"
                        f" ({error}); -9 mostly means that the machine ran out of memory: lower"
                        " placement.prefetch_batches or placement.cpus_per_worker"
                    ) from error
                log.warning("a process that reads %s died (%s); started another", self._setup, error)
            finally:
                self._idle.put(process)
        raise AssertionError("unreachable")

    def _replace(self, dead: JobProcess) -> JobProcess:
        dead.end()
        new = JobProcess(self._setup, self._memory.descriptor)
        self._processes[self._processes.index(dead)] = new
        return new


class BatchMemory:
    """Memory that processes share, without a name: it disappears with the last of them, and /dev/shm may be small.

    Args:
        num_bytes: its size.
    """

    def __init__(self, num_bytes: int) -> None:
        self.descriptor = os.memfd_create("sr3-batches")
        os.ftruncate(self.descriptor, num_bytes)
        self.array = np.frombuffer(mmap.mmap(self.descriptor, num_bytes), np.uint8)

    def close(self) -> None:
        """Let go of it; arrays of it stay valid."""
        os.close(self.descriptor)
