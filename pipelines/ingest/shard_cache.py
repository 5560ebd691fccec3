"""A local cache of remote shards, bounded in size and shared by the workers of a machine."""

import fcntl
import hashlib
import logging
import os
from pathlib import Path

from pipelines.shards.manifest import ShardEntry
from pipelines.storage.uris import read_bytes, write_atomic
from sr3core.errors import DataError

log = logging.getLogger(__name__)


class ShardCache:
    """Stores shards by their sha256 and evicts the least recently used; safe for many processes.

    Args:
        folder: a folder on a local disk; created if needed.
        max_bytes: limit on the total size. A larger shard is kept alone.
    """

    def __init__(self, folder: str | Path, max_bytes: int) -> None:
        self._folder, self._max_bytes = Path(folder), max_bytes
        self._folder.mkdir(parents=True, exist_ok=True)

    def read(self, uri: str, shard: ShardEntry, offset: int, size: int) -> bytes:
        """Read a range of a shard's bytes; downloads the whole shard first if it is not cached.

        Args:
            uri: the shard in its bucket.
            shard: its entry in the manifest.
            offset: first byte.
            size: number of bytes.

        Raises:
            DataError: the downloaded shard is not the one in the manifest.
            StorageError: the shard cannot be read, or the disk is full.
        """
        path = self._folder / f"{shard.sha256}.tar"
        while True:
            try:
                with path.open("rb") as file:
                    data = os.pread(file.fileno(), size, offset)
                    os.utime(file.fileno())  # mark it as used, so that others are evicted first
                return data
            except FileNotFoundError:  # not cached, or evicted by another worker a moment ago
                self._fetch(uri, shard, path)

    def _fetch(self, uri: str, shard: ShardEntry, path: Path) -> None:
        data = read_bytes(uri)
        if hashlib.sha256(data).hexdigest() != shard.sha256:
            raise DataError(f"{uri} is not the shard that its manifest describes; run `sr3 verify` on its folder")
        with (self._folder / ".lock").open("w") as lock:  # across processes and threads: their sum is bounded
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not path.exists():  # unless another worker has downloaded it meanwhile
                self._make_room(len(data))
                write_atomic(str(path), data)

    def _make_room(self, wanted: int) -> None:
        kept = []
        for path in self._folder.glob("*.tar"):
            try:
                status = path.stat()
            except FileNotFoundError:  # another worker evicts too
                continue
            kept.append((status.st_mtime_ns, status.st_size, path))
        total = sum(size for _, size, _ in kept)
        for _, size, path in sorted(kept):
            if total + wanted <= self._max_bytes:
                return
            path.unlink(missing_ok=True)  # a reader that has it open can still read it
            total -= size
            log.debug("cache: evicted %s", path.name)
