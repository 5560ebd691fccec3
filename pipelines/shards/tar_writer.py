"""Writing a tar shard: USTAR without times and owners, so that the same samples give the same bytes."""

import hashlib
import os
import tarfile
from collections.abc import Mapping
from types import TracebackType

from pipelines.storage.local_files import describe_error, discard
from pipelines.storage.uris import commit, delete, temporary_path
from sr3core.errors import StorageError

_BLOCK = tarfile.BLOCKSIZE


class ShardWriter:
    """Builds a tar beside its final place and commits it whole; without a commit, or after an error, nothing is left.

    Args:
        uri: where the tar appears, local or on S3.

    Raises:
        StorageError: its folder cannot be written to.
    """

    def __init__(self, uri: str) -> None:
        self.keys: list[str] = []
        self.members: list[dict[str, tuple[int, int]]] = []
        self.num_bytes = 0
        self._uri = uri
        self._temporary = temporary_path(uri)
        self._hash = hashlib.sha256()
        try:
            self._file = open(self._temporary, "wb", buffering=1 << 20)  # noqa: SIM115
        except OSError as error:
            raise self._failed(error) from error

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._file.close()
        except OSError as failure:  # a full disk shows again here, when the buffer is flushed
            if error is None:
                raise self._failed(failure) from failure
        finally:
            discard(self._temporary)

    def add(self, key: str, members: Mapping[str, bytes]) -> None:
        """Append one sample.

        Raises:
            StorageError: the disk is full or fails.
        """
        places = {}
        for name, data in members.items():
            info = tarfile.TarInfo(f"{key}.{name}")
            info.size = len(data)
            self._write(info.tobuf(tarfile.USTAR_FORMAT))
            places[name] = (self.num_bytes, len(data))
            self._write(data)
            self._write(b"\0" * (-len(data) % _BLOCK))
        self.keys.append(key)
        self.members.append(places)

    def commit(self) -> str:
        """Finish the tar, sync it to disk and make it appear; an empty tar is dropped, and so is an earlier one.

        Returns:
            The SHA-256 of the tar; "" for an empty one.
        """
        if not self.keys:
            delete(self._uri)
            return ""
        self._write(b"\0" * (2 * _BLOCK))
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise self._failed(error) from error
        commit(self._temporary, self._uri)
        return self._hash.hexdigest()

    def _write(self, data: bytes) -> None:
        try:
            self._file.write(data)
        except OSError as error:
            raise self._failed(error) from error
        self._hash.update(data)
        self.num_bytes += len(data)

    def _failed(self, error: OSError) -> StorageError:
        return StorageError(f"{self._uri}: cannot write {self._temporary}: {describe_error(error)}")
