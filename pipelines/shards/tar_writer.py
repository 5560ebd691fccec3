"""Writing a tar shard: USTAR without times and owners, so that the same samples give the same bytes."""

import hashlib
import tarfile
from collections.abc import Mapping
from types import TracebackType

from pipelines.storage.atomic_writers import open_writer
from pipelines.storage.uris import delete
from sr3core.errors import StorageError

_BLOCK = tarfile.BLOCKSIZE


class ShardWriter:
    """Writes a tar that appears whole at its commit; without a commit, or after an error, nothing is left.

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
        self._hash = hashlib.sha256()
        self._file = open_writer(uri)

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._file.discard()
        except StorageError:
            if error is None:
                raise

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
        self._file.commit()
        return self._hash.hexdigest()

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._hash.update(data)
        self.num_bytes += len(data)
