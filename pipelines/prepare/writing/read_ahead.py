"""Reading a shard's images while earlier ones are decoded: a bucket answers each read after tens of milliseconds."""

from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol, TypeVar

NUM_READS = 16
"""Images that are read, or wait to be decoded, at once."""
AHEAD_BYTES = 64 << 20
"""What those should take in memory; of images that are larger on average, fewer are read ahead."""


class Readable(Protocol):
    """An image to be read."""

    @property
    def how(self) -> str:
        """How, as in pipelines.prepare.sources.items."""
        ...


R = TypeVar("R", bound=Readable)
Read = Callable[[], bytes]
"""Waits for an image's bytes. Raises what reading them raises."""


def read_ahead(items: Sequence[R], read: Callable[[R], bytes]) -> Generator[tuple[R, Read], None, None]:
    """Yield images in their order, each with what waits for its bytes, while those that follow are read in threads.

    Args:
        items: the images. Rows of parquet files are read by one thread: neighbours are in one group, read as a whole.
        read: reads one; safe for threads.
    """
    waiting, sizes = iter(items), _MeanSize()
    num_threads = 1 if any(item.how == "row" for item in items) else NUM_READS
    pending: deque[tuple[R, Future[bytes]]] = deque()
    pool = ThreadPoolExecutor(num_threads, "read")
    try:
        while True:
            while len(pending) < min(NUM_READS, 1 + AHEAD_BYTES // sizes.mean) and (item := next(waiting, None)):
                pending.append((item, pool.submit(sizes.noted, read, item)))
            if not pending:
                return
            item, future = pending.popleft()
            yield item, _once(future, read, item)
    finally:
        pool.shutdown(cancel_futures=True)


class _MeanSize:
    """The mean size of the images that were read."""

    def __init__(self) -> None:
        self._total, self._count = 0, 0

    @property
    def mean(self) -> int:
        """Bytes, 1 at least."""
        return max(1, self._total // max(1, self._count))

    def noted(self, read: Callable[[R], bytes], item: R) -> bytes:
        """Read an image. A sum that misses one that was read at the same moment is good enough."""
        data = read(item)
        self._total += len(data)
        self._count += 1
        return data


def _once(future: Future[bytes], read: Callable[[R], bytes], item: R) -> Read:
    def wait() -> bytes:
        try:
            return future.result()
        except MemoryError:  # the limit that holds while an image is decoded holds for threads that read meanwhile, too
            return read(item)

    return wait
