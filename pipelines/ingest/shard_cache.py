"""A local cache of remote shards, bounded in size and shared by the processes of a machine."""

import fcntl
import hashlib
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from pipelines.shards.manifest import ShardEntry
from pipelines.storage.uris import read_chunks
from sr3core.errors import DataError, StorageError

log = logging.getLogger(__name__)


class NoRoomError(StorageError):
    """The cache cannot take a shard; its records can still be read one by one."""


class ShardCache:
    """Stores shards by their sha256 and evicts the least recently used; safe for many processes.

    A shard is downloaded to SHA256.part, whose lock is held meanwhile: whoever else wants the shard waits for that one
    download, and downloads of different shards do not wait for each other. The file has its final size from the
    start, so that downloads under way count towards the bound, and a full disk shows before anything is transferred.

    Args:
        folder: a folder on a local disk; created if needed.
        max_bytes: limit on the total size.
    """

    def __init__(self, folder: str | Path, max_bytes: int) -> None:
        self._folder, self._max_bytes = Path(folder), max_bytes
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(
                f"{folder}: the cache of shards cannot be written there: {error.strerror}; set placement.cache_folder"
            ) from error

    @property
    def capacity(self) -> int:
        """Bytes that it can hold, by its bound and by what is free on its disk."""
        held = sum(size for _, size, _ in self._held())
        return min(self._max_bytes, held + shutil.disk_usage(self._folder).free)

    def read(self, shard: ShardEntry, offset: int, size: int) -> bytes | None:
        """Read a range of a shard's bytes; None if the shard is not in the cache.

        Args:
            shard: its entry in the manifest.
            offset: first byte.
            size: number of bytes.
        """
        path = self._path(shard)
        try:
            with path.open("rb") as file:
                if os.fstat(file.fileno()).st_size == shard.num_bytes:
                    os.utime(file.fileno())  # mark it as used, so that others are evicted first
                    return os.pread(file.fileno(), size, offset)
        except FileNotFoundError:
            return None
        self._discard(path, shard, "truncated")
        return None

    def fetch(self, uri: str, shard: ShardEntry) -> None:
        """Have a shard in the cache, and mark it as used; of several processes that want it one downloads it.

        Args:
            uri: the shard in its bucket.
            shard: its entry in the manifest.

        Raises:
            DataError: the downloaded shard is not the one in the manifest.
            NoRoomError: the cache or its disk is too small.
            StorageError: the shard cannot be read.
        """
        path = self._path(shard)
        while not _mark_as_used(path):
            part = path.with_suffix(".part")
            with _locked(part) as file:
                if path.exists() or not _is_at(part, file):  # another process has finished it meanwhile
                    if _is_at(part, file):
                        part.unlink()
                    continue
                try:
                    self._reserve(file, shard, uri)
                    _download(uri, shard, file)
                    part.replace(path)
                except BaseException:
                    part.unlink(missing_ok=True)
                    raise

    def discard_if_damaged(self, shard: ShardEntry) -> bool:
        """Delete the cached copy of a shard if its bytes are not the manifest's; returns whether they were not."""
        path = self._path(shard)
        try:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except FileNotFoundError:
            return False
        if digest == shard.sha256:
            return False
        self._discard(path, shard, "damaged")
        return True

    def _discard(self, path: Path, shard: ShardEntry, state: str) -> None:
        log.warning("%s: deleted, because this copy of %s was %s", path, shard.name, state)
        path.unlink(missing_ok=True)

    def _path(self, shard: ShardEntry) -> Path:
        return self._folder / f"{shard.sha256}.tar"

    def _reserve(self, file: BinaryIO, shard: ShardEntry, uri: str) -> None:
        """Give a new file the size of a shard, after evicting what has to make room for it."""
        wanted = shard.num_bytes
        with _locked(self._folder / ".lock"):  # across processes and threads: their sum is bounded
            file.truncate(0)
            held = self._held()
            total = sum(size for _, size, _ in held)
            for _, size, path in sorted(held):
                if total + wanted <= self._max_bytes:
                    break
                if path.suffix == ".tar" or _is_abandoned(path):
                    path.unlink(missing_ok=True)  # a reader that has it open can still read it
                    total -= size
            if total + wanted > self._max_bytes:
                raise NoRoomError(
                    f"{self._folder}: no room for {uri} of {wanted:,} bytes in a cache of {self._max_bytes:,}; raise"
                    " placement.cache_bytes"
                )
            try:
                os.posix_fallocate(file.fileno(), 0, wanted)
            except OSError as error:
                file.truncate(0)
                raise NoRoomError(
                    f"{self._folder}: no room for {uri} of {wanted:,} bytes: {error.strerror}; free some, or set"
                    " placement.cache_folder to another disk or placement.cache_bytes to less than this one has"
                ) from error

    def _held(self) -> list[tuple[int, int, Path]]:
        """(time of use, bytes, path) of every shard and every download under way."""
        held = {}
        for path in [*self._folder.glob("*.part"), *self._folder.glob("*.tar")]:
            for place in (path, path.with_suffix(".tar")):  # a download that has ended since has its shard's name
                try:
                    status = place.stat()
                except FileNotFoundError:  # another worker evicts too
                    continue
                held[place] = (status.st_mtime_ns, status.st_size, place)
                break
        return list(held.values())


def _download(uri: str, shard: ShardEntry, file: BinaryIO) -> None:
    digest, length = hashlib.sha256(), 0
    for chunk in read_chunks(uri):
        length += len(chunk)
        if length > shard.num_bytes:
            break
        digest.update(chunk)
        file.write(chunk)
    file.flush()
    if length != shard.num_bytes or digest.hexdigest() != shard.sha256:
        raise DataError(f"{uri} is not the shard that its manifest describes; run `sr3 verify` on its folder")


@contextmanager
def _locked(path: Path) -> Iterator[BinaryIO]:
    """A file, created if it is missing, with its lock held; the lock of a killed process is free."""
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file


def _is_at(path: Path, file: BinaryIO) -> bool:
    """Whether a path still names an open file, which another process may have renamed or deleted."""
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _is_abandoned(part: Path) -> bool:
    """Whether the process that was downloading a part has died."""
    try:
        with part.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return False
    return True


def _mark_as_used(path: Path) -> bool:
    """Set a file's time of use to now; whether it exists."""
    try:
        os.utime(path)
    except FileNotFoundError:
        return False
    return True
