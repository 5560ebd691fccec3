"""Bytes that are put aside while there may be too many for the memory."""

import tempfile
from typing import NamedTuple

from pipelines.storage.local_files import local_errors

_MEMORY_BYTES = 1 << 25
"""What a spool holds in memory; more goes to a file in the system's temporary folder ($TMPDIR), which has no name."""


class Extent(NamedTuple):
    """Where one piece lies in a spool."""

    offset: int
    """Its first byte."""
    size: int
    """Bytes."""


class Spool:
    """Pieces of bytes, to be read again in any order while the spool lives."""

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(_MEMORY_BYTES)  # noqa: SIM115
        self.num_bytes = 0

    def append(self, data: bytes) -> Extent:
        """Put a piece aside.

        Raises:
            StorageError: the temporary folder is full.
        """
        with local_errors(f"{tempfile.gettempdir()} (choose another folder by TMPDIR)"):
            self._file.seek(self.num_bytes)
            self._file.write(data)
        extent = Extent(self.num_bytes, len(data))
        self.num_bytes += len(data)
        return extent

    def read(self, extent: Extent) -> bytes:
        """Read a piece."""
        self._file.seek(extent.offset)
        return self._file.read(extent.size)
