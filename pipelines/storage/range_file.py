"""A file over anything that can be read at an offset: an object on S3, or a part of another file."""

import io
from collections.abc import Callable
from typing import Any


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
