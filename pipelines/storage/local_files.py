"""Files on local disks: walking a folder without losing an entry, and reading with errors that name the file."""

import contextlib
import errno
import io
import os
import stat
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

from sr3core.errors import MissingError, StorageError

_LEADS_NOWHERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
"""Errors of a symbolic link that points to nothing or to itself; any other may pass, and is one of the storage."""


class Entry(NamedTuple):
    """What a folder or prefix holds under one name."""

    name: str
    """Name relative to the folder; a folder's ends with a slash."""
    size: int = -1
    """Bytes of a file; -1 if there are none to count."""
    kind: Literal["file", "special", "folder_again"] = "file"
    """file: a regular file, or a link, perhaps to nothing. special: a pipe, socket or device, or an object that only a
    name with a slash at its end reaches. folder_again: a link to a folder that is walked under another name."""


def walk(root: str) -> Iterator[Entry]:
    """Yield every entry below a folder but its folders; symbolic links are followed, and each folder is walked once.

    Raises:
        StorageError: a folder cannot be listed, or a link not be followed.
    """

    def fail(error: OSError) -> None:
        raise StorageError(f"{error.filename}: cannot list: {error.strerror}") from error

    seen: set[tuple[int, int]] = set()
    for folder, subfolders, names in os.walk(root, followlinks=True, onerror=fail):
        with local_errors(folder):
            status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:
            subfolders.clear()
            yield Entry(os.path.relpath(folder, root) + "/", kind="folder_again")
            continue
        seen.add((status.st_dev, status.st_ino))
        subfolders.sort()
        prefix = os.path.relpath(folder, root) + "/" if folder != root else ""
        for name in names:
            yield _entry(os.path.join(folder, name), prefix + name)


def _entry(path: str, name: str) -> Entry:
    try:
        status = os.stat(path)
    except OSError as error:
        if error.errno in _LEADS_NOWHERE:
            return Entry(name)
        raise StorageError(f"{path}: cannot list: {error.strerror}") from error
    return Entry(name, status.st_size) if stat.S_ISREG(status.st_mode) else Entry(name, kind="special")


@contextlib.contextmanager
def local_errors(path: str) -> Iterator[None]:
    """Turn the system's errors into ours, which name the path."""
    try:
        yield
    except OSError as error:
        kind = MissingError if error.errno in _LEADS_NOWHERE else StorageError
        raise kind(f"{path}: {error.strerror or error}") from error


class LocalFile(io.FileIO):
    """A file open for reading whose errors are StorageErrors: a library that reads it cannot take them for damage."""

    def __init__(self, path: str) -> None:
        self._path = path
        with local_errors(path):
            super().__init__(path, "rb")

    def readinto(self, buffer: Any) -> int | None:
        with local_errors(self._path):
            return super().readinto(buffer)

    def readall(self) -> bytes:
        with local_errors(self._path):
            return super().readall()
