"""Writing a file or object piece by piece: it appears whole when it is committed, and never if it is not."""

import os
import shutil
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Protocol

from pipelines.storage.buckets import s3, s3_client
from pipelines.storage.local_files import describe_error, discard, local_errors
from pipelines.storage.uris import absolute, commit, is_remote, temporary_path
from sr3core.errors import StorageError

PART_BYTES = 16 << 20
"""Bytes of a part of an upload: one is being made while another one is on its way, and no more is in memory."""


class AtomicWriter(Protocol):
    """Takes the bytes of one file or object, in order."""

    def write(self, data: bytes) -> None:
        """Append bytes.

        Raises:
            StorageError: the disk is full or fails, or the server does.
        """
        ...

    def commit(self) -> None:
        """Make what was written appear, atomically.

        Raises:
            StorageError: as write does.
        """
        ...

    def discard(self) -> None:
        """Leave nothing, unless it was committed; a second call does nothing."""
        ...


def open_writer(uri: str) -> AtomicWriter:
    """Begin to write a file or object; until its commit, what is at the URI stays.

    Raises:
        StorageError: its folder cannot be written to.
    """
    return _Upload(uri) if is_remote(uri) else _BesideFile(uri)


def write_pieces(uri: str, pieces: Iterable[bytes]) -> None:
    """Write a file or object of any size.

    Raises:
        StorageError: it cannot be written; nothing of it is left.
    """
    writer = open_writer(uri)
    try:
        for piece in pieces:
            writer.write(piece)
        writer.commit()
    finally:
        writer.discard()


def put_file(path: str, uri: str) -> None:
    """Copy a local file to a URI, atomically."""
    if is_remote(uri):
        s3.upload(path, uri)
        return
    temporary = temporary_path(uri)
    try:
        with local_errors(uri):
            shutil.copyfile(path, temporary)
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
        commit(temporary, uri)
    finally:
        discard(temporary)


class _BesideFile:
    """A temporary file beside the final place."""

    def __init__(self, uri: str) -> None:
        self._uri = absolute(uri)
        self._temporary = temporary_path(uri)
        with self._errors():
            self._file = open(self._temporary, "wb", buffering=1 << 20)  # noqa: SIM115

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StorageError(f"{self._uri}: cannot write {self._temporary}: {describe_error(error)}") from error

    def write(self, data: bytes) -> None:
        with self._errors():
            self._file.write(data)

    def commit(self) -> None:
        with self._errors():
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
        commit(self._temporary, self._uri)

    def discard(self) -> None:
        try:
            with self._errors():  # a full disk shows again here, when the buffer is flushed
                self._file.close()
        finally:
            discard(self._temporary)


class _Upload:
    """An upload in parts, each sent as soon as it is full; what fits one part is sent in one request."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._buffer = bytearray()
        self._upload = ""
        self._etags: list[str] = []
        self._pool = ThreadPoolExecutor(1, "upload")
        self._sending: Future[None] | None = None

    def write(self, data: bytes) -> None:
        self._buffer += data
        while len(self._buffer) > PART_BYTES:
            part = bytes(self._buffer[:PART_BYTES])
            del self._buffer[:PART_BYTES]
            self._send(part)

    def commit(self) -> None:
        if not self._upload:
            s3.put(self._uri, bytes(self._buffer))
        else:
            self._send(bytes(self._buffer))
            self._wait()
            parts = [{"ETag": etag, "PartNumber": number} for number, etag in enumerate(self._etags, 1)]
            with s3_client.requests_on(self._uri) as (client, place):
                client.complete_multipart_upload(**place, UploadId=self._upload, MultipartUpload={"Parts": parts})
        self._upload = ""
        self._pool.shutdown()

    def discard(self) -> None:
        self._pool.shutdown(cancel_futures=True)
        self._buffer.clear()
        upload, self._upload = self._upload, ""
        if upload:
            with s3_client.requests_on(self._uri) as (client, place):
                client.abort_multipart_upload(**place, UploadId=upload)

    def _send(self, part: bytes) -> None:
        """Begin to send a part, once the one before it is there."""
        self._wait()
        if not self._upload:
            with s3_client.requests_on(self._uri) as (client, place):
                self._upload = client.create_multipart_upload(**place)["UploadId"]
        self._sending = self._pool.submit(self._put_part, part)

    def _put_part(self, part: bytes) -> None:
        with s3_client.requests_on(self._uri) as (client, place):
            number = len(self._etags) + 1
            answer = client.upload_part(**place, UploadId=self._upload, PartNumber=number, Body=part)
            self._etags.append(answer["ETag"])

    def _wait(self) -> None:
        if self._sending is not None:
            self._sending.result()
