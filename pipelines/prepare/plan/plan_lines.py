"""The lines of a plan while they are written: plan.jsonl may be larger than the memory, and than one request to S3."""

import hashlib

from pipelines.storage.atomic_writers import write_pieces
from pipelines.storage.spool import Extent, Spool


class PlanLines:
    """One line a shard: a JSON array of its images' rows."""

    def __init__(self) -> None:
        self._spool = Spool()
        self._extents: list[Extent] = []
        self._hash = hashlib.sha256()
        self._line = bytearray()

    @property
    def fingerprint(self) -> str:
        """Hash of all lines."""
        return self._hash.hexdigest()[:16]

    def add_rows(self, rows: bytes) -> None:
        """Add rows, separated by commas, to the current line."""
        self._line += (b"," if self._line else b"[") + rows

    def end_line(self) -> tuple[int, int, str]:
        """End the current line; returns its offset, its bytes and its hash."""
        line = bytes(self._line + b"]\n")
        self._line.clear()
        self._hash.update(line)
        extent = self._spool.append(line)
        self._extents.append(extent)
        return extent.offset, extent.size, hashlib.sha256(line).hexdigest()[:16]

    def __bytes__(self) -> bytes:
        """All lines."""
        return b"".join(map(self._spool.read, self._extents))

    def save(self, uri: str) -> None:
        """Write all lines to a file or object, atomically, a large object in parts."""
        write_pieces(uri, map(self._spool.read, self._extents))
