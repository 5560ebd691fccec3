"""A local cache of remote shards with a bound on its size, shared by the workers of a machine."""

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
    """Shards under their sha256, the least recently used deleted first; safe for many processes.

    Args:
        folder: on a local disk; made when needed.
        max_bytes: bound on what is kept. A shard larger than that is kept alone.
    """

    def __init__(self, folder: str | Path, max_bytes: int) -> None:
        self._folder, self._max_bytes = Path(folder), max_bytes
        self._folder.mkdir(parents=True, exist_ok=True)

    def read(self, uri: str, shard: ShardEntry, offset: int, size: int) -> bytes:
        """Read bytes of a shard, fetching the whole of it first where it is not here.

        Raises:
            DataError: what was fetched is not what the manifest promises.
            StorageError: the shard cannot be read, or the disk is full.
        """
        path = self._folder / f"{shard.sha256}.tar"
        while True:
            try:
                with path.open("rb") as file:
                    data = os.pread(file.fileno(), size, offset)
                    os.utime(file.fileno())  # it is in use: evict others before it
                return data
            except FileNotFoundError:  # never here, or evicted by another worker a moment ago
                self._fetch(uri, shard, path)

    def _fetch(self, uri: str, shard: ShardEntry, path: Path) -> None:
        data = read_bytes(uri)
        if hashlib.sha256(data).hexdigest() != shard.sha256:
            raise DataError(f"{uri} is not the shard that its manifest describes; run `sr3 verify` on its folder")
        with (self._folder / ".lock").open("w") as lock:  # of all processes and threads: their sum must stay in bounds
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not path.exists():  # another one fetched it too
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
            path.unlink(missing_ok=True)  # a reader that has it open goes on reading it
            total -= size
            log.debug("cache: evicted %s", path.name)
