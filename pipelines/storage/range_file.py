"""A file over anything that can be read at an offset: an object on S3, or a part of another file."""

import io
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

PIECE_BYTES = 1 << 20
"""What is fetched at a time."""
_PIECES_AHEAD = 8
"""Pieces that are on their way while a file is read from front to back."""
_SMALL_GAP_BYTES = PIECE_BYTES // 4
"""What may be skipped and still counts as reading on: fetching it costs less than a request of its own."""


class RangeFile(io.RawIOBase):
    """A read-only, seekable file of a known size.

    Args:
        read_at: called as read_at(offset, size); may return fewer bytes at the end.
        size: bytes of the file.
    """

    def __init__(self, read_at: Callable[[int, int], bytes], size: int) -> None:
        self._read_at, self._size, self._position = read_at, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(base + offset, 0)
        return self._position

    def readinto(self, buffer: Any) -> int:
        wanted = min(len(buffer), max(self._size - self._position, 0))
        data = self._read_at(self._position, wanted) if wanted else b""
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


class SequentialFile(RangeFile):
    """One that is mostly read from front to back: while it is, the next pieces are fetched before they are wanted.

    Where a read jumps ahead or back, it alone is fetched.

    Args:
        read_at: as RangeFile's; threads call it at the same time, for each byte once while reading goes on.
        size: bytes of the file.
    """

    def __init__(self, read_at: Callable[[int, int], bytes], size: int) -> None:
        super().__init__(self._read, size)
        self._fetch, self._begun, self._reached = read_at, 0, -1
        self._pieces: dict[int, Future[bytes]] = {}
        self._pool = ThreadPoolExecutor(_PIECES_AHEAD)

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        super().close()

    def _read(self, offset: int, size: int) -> bytes:
        goes_on = self._begun <= offset <= self._reached + _SMALL_GAP_BYTES
        self._begun, self._reached = offset, offset + size
        first, last = offset // PIECE_BYTES, (offset + size - 1) // PIECE_BYTES
        self._want(range(first, last + 1 + _PIECES_AHEAD) if goes_on else range(0))
        if not goes_on:
            return self._fetch(offset, size)
        found = b"".join(self._pieces[number].result() for number in range(first, last + 1))
        return found[offset - first * PIECE_BYTES :][:size]

    def _want(self, numbers: range) -> None:
        """Fetch these pieces, as far as there are so many, and no others."""
        for number in self._pieces.keys() - set(numbers):
            self._pieces.pop(number).cancel()
        for number in numbers:
            if number not in self._pieces and number * PIECE_BYTES < self._size:
                size = min(PIECE_BYTES, self._size - number * PIECE_BYTES)
                self._pieces[number] = self._pool.submit(self._fetch, number * PIECE_BYTES, size)
