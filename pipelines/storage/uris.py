"""Files on local disks and on S3, through a few functions on URIs; readers see whole files or none.

A plain path or a file:// URL is local, `s3://bucket/key` is on S3. Endpoint and credentials come from the environment
(AWS_ENDPOINT_URL, ...); a URI may give its endpoint itself: `s3://bucket/key?endpoint_override=http://host:port`.
"""

import contextlib
import glob
import io
import os
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

from pipelines.settings.locations import HUB
from pipelines.storage.buckets import s3
from pipelines.storage.buckets.s3_client import split_options
from pipelines.storage.local_files import (
    Entry,
    LocalFile,
    discard,
    is_special,
    list_top,
    local_errors,
    short_name,
    sync_folder,
    temporary_beside,
    walk,
)
from pipelines.storage.range_file import PIECE_BYTES
from pipelines.storage.schemes import describe_unsupported
from pipelines.storage.scratch import scratch_folder
from sr3core.errors import MissingError, StorageError


def is_remote(uri: str) -> bool:
    """Whether uri is on S3.

    Raises:
        StorageError: the scheme is neither s3:// nor file://, or it is that of models on the hub.
    """
    scheme, separator, _ = uri.partition("://")
    if uri.startswith(HUB):
        raise StorageError(describe_unsupported(uri))
    if not separator or scheme == "file":
        return False
    if scheme == "s3":
        return True
    raise StorageError(describe_unsupported(uri))


def absolute(uri: str) -> str:
    """Make a URI independent of the working directory, which differs between Ray workers."""
    return uri if is_remote(uri) else os.path.abspath(path_of(uri))


def path_of(uri: str) -> str:
    """The path of a local URI: a file:// URL's with its percent signs decoded, a plain path as it is.

    Raises:
        StorageError: the URL is that of another machine.
    """
    if not uri.startswith("file://"):
        return uri
    host, slash, path = uri.removeprefix("file://").partition("/")
    if host not in ("", "localhost"):
        raise StorageError(f"{uri}: {host!r} would be another machine; write file:///FOLDER/FILE, or the path alone")
    return slash + os.fsdecode(urllib.parse.unquote_to_bytes(path))


def join(uri: str, *parts: str) -> str:
    """Append path components; an s3:// URI keeps its slashes and its options."""
    if not is_remote(uri):
        return os.path.join(path_of(uri), *parts)
    path, options = split_options(uri)
    return "/".join([path.rstrip("/"), *parts]) + options


def relative_to(uri: str, folder: str) -> str | None:
    """The part of an absolute URI below a given folder; "" if it is that folder, None if it is elsewhere."""
    path, root = (split_options(place)[0].rstrip("/") if is_remote(place) else place for place in (uri, folder))
    below = os.path.join(root, "")
    return "" if path == root else path[len(below) :] if path.startswith(below) else None


def is_below(uri: str, folder: str) -> bool:
    """Whether an absolute URI is a given folder or lies in it."""
    return relative_to(uri, folder) is not None


def name_of(uri: str) -> str:
    """The last component of a URI."""
    return split_options(uri)[0].rstrip("/").rpartition("/")[2] if is_remote(uri) else os.path.basename(path_of(uri))


def parent_of(uri: str) -> str:
    """The folder or prefix that a URI is in."""
    if not is_remote(uri):
        return os.path.dirname(absolute(uri))
    path, options = split_options(uri)
    return path.rstrip("/").rpartition("/")[0] + options


def exists(uri: str) -> bool:
    """Whether a file, an object or a folder (a prefix with objects in it) exists."""
    if not is_remote(uri):
        return os.path.exists(absolute(uri))
    return s3.head(uri) is not None or is_folder(uri)


def is_folder(uri: str) -> bool:
    """Whether a URI is a folder, or a prefix with objects in it."""
    if not is_remote(uri):
        return os.path.isdir(absolute(uri))
    return next(list_files(uri), None) is not None


def is_file(uri: str) -> bool:
    """Whether a URI is a file or an object."""
    return s3.head(uri) is not None if is_remote(uri) else os.path.isfile(absolute(uri))


def size_of(uri: str) -> int:
    """Size of a file or object in bytes."""
    if not is_remote(uri):
        with local_errors(uri):
            return os.path.getsize(absolute(uri))
    head = s3.head(uri)
    if head is None:
        raise MissingError(f"{uri}: no such object")
    return head["ContentLength"]


def list_files(uri: str) -> Iterator[tuple[str, int]]:
    """Yield (name relative to uri, size in bytes) of every file below a folder or prefix, in no particular order.

    Local symbolic links are followed, each folder once. The size is -1 of a link to nothing.
    """
    for name, size, kind in list_entries(uri):
        if kind == "file":
            yield name, size


def list_entries(uri: str, recursive: bool = True) -> Iterator[Entry]:
    """Yield what is below a folder or prefix, in no particular order: files, and what is none, by its kind.

    If not recursive, each folder in it is one entry.
    """
    if not is_remote(uri):
        yield from walk(absolute(uri)) if recursive else list_top(absolute(uri))
        return
    for name, size in s3.list_objects(uri, recursive):
        yield remote_entry(name, size) if recursive or not name.endswith("/") else Entry(name, size, "folder")


def remote_entry(name: str, size: int) -> Entry:
    """What an object is: a file, unless its name ends as a folder's does."""
    return Entry(name, size, "special" if name.endswith("/") else "file")


def read_bytes(uri: str) -> bytes:
    """Read a file or object.

    Raises:
        MissingError: there is none.
        StorageError: it cannot be read, perhaps only at the moment.
    """
    if is_remote(uri):
        return s3.read(uri, 0, None)
    with local_errors(uri), open(absolute(uri), "rb") as file:
        return file.read()


def read_chunks(uri: str) -> Iterator[bytes]:
    """Yield a file or object in pieces of at most 1 MiB."""
    if is_remote(uri):
        yield from s3.read_chunks(uri)
        return
    with local_errors(uri), open(absolute(uri), "rb") as file:
        while chunk := file.read(PIECE_BYTES):
            yield chunk


def read_range(uri: str, offset: int, size: int) -> bytes:
    """Read size bytes from offset.

    Raises:
        MissingError: there is no file, or it ends before that.
        StorageError: it cannot be read, perhaps only at the moment.
    """
    if is_remote(uri):
        data = s3.read(uri, offset, size) if size else b""
    else:
        with local_errors(uri), open(absolute(uri), "rb") as file:
            file.seek(offset)
            data = file.read(size)
    if len(data) != size:
        raise MissingError(f"{uri}: ends within bytes {offset} to {offset + size}; it is truncated")
    return data


def open_seekable(uri: str, from_front: bool = False) -> io.BufferedReader:
    """Open for random access, as archives need it; on S3 each seek costs a request, which reads 1 MiB ahead.

    What is mostly read from front to back has several requests on their way at once: from_front.

    Raises:
        MissingError: there is no such file; StorageError: it cannot be opened, or later not be read.
    """
    if is_remote(uri):
        return io.BufferedReader(s3.open_ranges(uri, from_front), PIECE_BYTES)
    return io.BufferedReader(LocalFile(absolute(uri)))


def write_atomic(uri: str, data: bytes) -> None:
    """Write a file or object: a reader sees the former content, or all of data."""
    if is_remote(uri):
        s3.put(uri, data)
        return
    with _beside(uri, data) as temporary:
        commit(temporary, uri)


def create(uri: str, data: bytes) -> bool:
    """Write a file or object unless it exists; of several processes that do so at once, exactly one gets True.

    data must be unique to the process: in a bucket, this is how a writer recognises its own object.
    """
    if is_remote(uri):
        return s3.create(uri, data)
    with _beside(uri, data) as temporary:
        try:
            with local_errors(uri):
                os.link(temporary, absolute(uri))  # unlike a rename, it never replaces
        except StorageError as error:
            if isinstance(error.__cause__, FileExistsError):
                return False
            raise
        with local_errors(uri):
            sync_folder(os.path.dirname(absolute(uri)))
        return True


@contextlib.contextmanager
def _beside(uri: str, data: bytes) -> Iterator[str]:
    """A synced temporary file with data, beside its final place; deleted at the end of the block."""
    temporary = temporary_path(uri)
    try:
        with local_errors(uri), open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        discard(temporary)


def temporary_path(uri: str) -> str:
    """A fresh local path to write a URI's content to; beside a local URI, so that commit can rename it."""
    return temporary_beside(os.path.join(scratch_folder(), name_of(uri)) if is_remote(uri) else absolute(uri))


def commit(temporary: str, uri: str) -> None:
    """Make a complete, synced local file appear at a URI, atomically.

    Raises:
        StorageError: it cannot be written, or would replace a device, a pipe or a socket, as root can for everybody.
    """
    if is_remote(uri):
        s3.upload(temporary, uri)
        return
    with local_errors(uri):
        if is_special(absolute(uri)):
            raise StorageError(f"{uri} is a device, pipe or socket; name a file")
        os.replace(temporary, absolute(uri))
        sync_folder(os.path.dirname(absolute(uri)))


def delete(uri: str) -> None:
    """Delete a file or object, if it exists."""
    if is_remote(uri):
        s3.delete(uri)
        return
    with local_errors(uri):
        Path(absolute(uri)).unlink(missing_ok=True)


def delete_leftovers(uri: str) -> None:
    """Delete the temporary files that killed processes left of a local file, see temporary_path."""
    if not is_remote(uri):
        folder, name = os.path.split(absolute(uri))
        short = short_name(name, len(".01234567-.tmp"))
        for leftover in glob.glob(f".????????-{glob.escape(short)}.tmp", root_dir=folder):
            delete(os.path.join(folder, leftover))
