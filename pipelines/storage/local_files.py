"""Files on local disks: walking a folder without losing an entry, and reading with errors that name the file."""

import contextlib
import errno
import hashlib
import io
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from sr3core.errors import MissingError, StorageError

_LEADS_NOWHERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
"""Errors of a symbolic link that points to nothing or to itself; any other may pass, and is one of the storage."""

MAX_NAME_BYTES = 255
"""Longest name of a file on common file systems."""
_REMEDIES = {
    errno.ENOSPC: "free space there, and run the same command again",
    errno.EDQUOT: "delete files of yours there, and run the same command again",
    errno.EROFS: "choose another folder, or mount the disk writable",
    errno.EACCES: "choose another folder, or change its permissions",
    errno.EPERM: "choose another folder, or change its permissions",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EMFILE: "raise the limit of open files (`ulimit -n 65536`), and run the same command again",
    errno.ENOTDIR: "name a folder",
    errno.EISDIR: "name a file",
    errno.ELOOP: "a link leads back to itself; name what it should lead to",
    errno.EIO: "the disk or its connection fails; look into the system's log (`dmesg`)",
    errno.ESTALE: "the network disk has lost the file; run the same command again",
}


class Entry(NamedTuple):
    """What a folder or prefix holds under one name."""

    name: str
    """Name relative to the folder; a folder's ends with a slash."""
    size: int = -1
    """Bytes of a file; -1 if there are none to count."""
    kind: Literal["file", "special", "folder", "folder_again"] = "file"
    """file: a regular file, or a link, perhaps to nothing. special: a pipe, socket or device, or an object that only a
    name with a slash at its end reaches. folder: one that is not walked. folder_again: a link to a folder that is
    walked under another name."""


def walk(root: str) -> Iterator[Entry]:
    """Yield every entry below a folder but its folders; symbolic links are followed, and each folder is walked once.

    Raises:
        StorageError: a folder cannot be listed, or a link not be followed.
    """

    def fail(error: OSError) -> None:
        changed = "; did it change while it was listed? Run the same command again" * isinstance(
            error, FileNotFoundError
        )
        raise StorageError(f"{error.filename}: cannot list: {describe_error(error)}{changed}") from error

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


def list_top(root: str) -> Iterator[Entry]:
    """Yield every entry of a folder, its folders as one each.

    Raises:
        StorageError: the folder cannot be listed, or a link not be followed.
    """
    with local_errors(root):
        names = os.listdir(root)
    for name in sorted(names):
        path = os.path.join(root, name)
        yield Entry(f"{name}/", kind="folder") if os.path.isdir(path) else _entry(path, name)


def _entry(path: str, name: str) -> Entry:
    try:
        status = os.stat(path)
    except OSError as error:
        if error.errno in _LEADS_NOWHERE:
            return Entry(name)
        raise StorageError(f"{path}: cannot list: {describe_error(error)}") from error
    return Entry(name, status.st_size) if stat.S_ISREG(status.st_mode) else Entry(name, kind="special")


@contextlib.contextmanager
def local_errors(path: str) -> Iterator[None]:
    """Turn the system's errors into ours, which name the path."""
    try:
        yield
    except OSError as error:
        kind = MissingError if error.errno in _LEADS_NOWHERE else StorageError
        raise kind(f"{path}: {describe_error(error)}") from error
    except UnicodeEncodeError as error:
        raise StorageError(
            f"{path}: this locale has no such characters for file names; set LC_ALL=C.UTF-8 and run the same command"
            " again"
        ) from error


def describe_error(error: OSError) -> str:
    """What failed, and what helps where that is known."""
    what = error.strerror or str(error)
    remedy = _REMEDIES.get(error.errno or 0)
    return f"{what}; {remedy}" if remedy else what


def discard(path: str | os.PathLike[str]) -> None:
    """Delete a temporary file, or leave it: what matters is why it was not needed, not why it cannot be deleted."""
    with contextlib.suppress(OSError):
        os.unlink(path)


def sync_folder(path: str) -> None:
    """Make the names in a folder survive a loss of power."""
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def short_name(name: str, room: int) -> str:
    """A name that leaves room for more bytes in a file's name: itself, or its beginning and a hash of all of it."""
    data = os.fsencode(name)
    if len(data) + room <= MAX_NAME_BYTES:
        return name
    digest = hashlib.sha256(data).hexdigest()[:16]
    return data[: MAX_NAME_BYTES - room - len(digest) - 1].decode(errors="ignore") + f"-{digest}"


def temporary_beside(path: str) -> str:
    """A fresh path in the folder of another, so that it can be renamed to that; makes the folder.

    Raises:
        StorageError: the folder cannot be made.
    """
    folder, name = os.path.split(path)
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        problem = "is not a folder" if isinstance(error, FileExistsError) else error.strerror or error
        raise StorageError(f"{folder}: cannot be written to: {problem}; choose another folder") from error
    return os.path.join(folder, f".{secrets.token_hex(4)}-{short_name(name, len('.01234567-.tmp'))}.tmp")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A fresh temporary path beside a local one, which it replaces at the end of the block; for what can be made again.

    Unlike uris.write_atomic, it does not wait until the content is on the disk.
    """
    temporary = Path(temporary_beside(os.path.abspath(path)))
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


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


def is_special(path: str) -> bool:
    """Whether a path is a device, a pipe or a socket; not what a link leads to."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode))
