"""Objects on S3 with boto3: listing, resumable range reads, whole-object writes; see pipelines.storage.uris."""

import os
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from pipelines.storage.buckets.s3_client import import_boto3, parse, requests_on
from pipelines.storage.local_files import describe_error, discard
from pipelines.storage.range_file import RangeFile, SequentialFile
from sr3core.errors import MissingError, StorageError

_MAX_CUTS = 8
"""Connections of one read that may break off one after another without a single byte."""
_MAX_PAUSE_SECONDS = 4.0
_CHUNK_BYTES = 1 << 17
"""Bytes that are read at a time, and so the most that a cut connection loses."""
_MAX_CREATE_ATTEMPTS = 8


def list_objects(uri: str, recursive: bool = True) -> Iterator[tuple[str, int]]:
    """Yield (name relative to the prefix, bytes) of every object below it; a name may begin or end with a slash.

    If not recursive, objects behind a slash are one entry, FOLDER/ and -1.
    """
    folders: set[str] = set()
    for name, item in _list(uri):
        folder, slash, _ = name.partition("/")
        if recursive or not slash:
            yield name, item["Size"]
        elif folder not in folders:
            folders.add(folder)
            yield folder + slash, -1


def list_versions(uri: str) -> Iterator[tuple[str, str]]:
    """Yield (name relative to the prefix, ETag) of every object below it; the ETag changes with the content."""
    for name, item in _list(uri):
        yield name, item["ETag"]


def _list(uri: str) -> Iterator[tuple[str, dict[str, Any]]]:
    with requests_on(uri) as (client, place):
        prefix = f"{place['Key']}/" if place["Key"] else ""
        pages = client.get_paginator("list_objects_v2")
        for page in pages.paginate(Bucket=place["Bucket"], Prefix=prefix):
            for item in page.get("Contents", ()):
                if not is_marker(item):
                    yield item["Key"][len(prefix) :], item


def is_marker(item: dict[str, Any]) -> bool:
    """Whether an object of a listing is nothing but a folder that a console shows."""
    return item["Key"].endswith("/") and not item["Size"]


def head(uri: str) -> dict[str, Any] | None:
    """The server's metadata of an object; None if there is no such object."""
    import_boto3()
    from botocore.exceptions import ClientError

    if not parse(uri).key:
        return None
    with requests_on(uri) as (client, place):
        try:
            return client.head_object(**place)
        except ClientError as error:
            if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") == 404:
                return None
            raise


def read(uri: str, offset: int, size: int | None) -> bytes:
    """Read size bytes from offset (None: to the end); resumes after a cut connection, on the same version.

    Raises:
        MissingError: there is no such object, or it ends before offset.
    """
    data = bytearray()
    for chunk in read_chunks(uri, offset, size):
        data += chunk
    return bytes(data)


def download(uri: str, path: Path) -> None:
    """Download an object to a local file, atomically and without holding it in memory."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            for chunk in read_chunks(uri):
                file.write(chunk)
        temporary.replace(path)
    except OSError as error:
        raise StorageError(f"{path}, which was to receive {uri}: {describe_error(error)}") from error
    finally:
        discard(temporary)


def read_chunks(uri: str, offset: int = 0, size: int | None = None) -> Iterator[bytes]:
    """Yield the bytes of a range (size None: to the end) in pieces, each once however often the connection is cut.

    What counts is progress: a connection that brought a byte was worth it, and a large object may need many.
    """
    import_boto3()
    from botocore import exceptions as failures
    from urllib3.exceptions import HTTPError

    cut = (failures.IncompleteReadError, failures.ResponseStreamingError, failures.ReadTimeoutError, HTTPError)
    position, conditions, cuts = offset, {}, 0
    with requests_on(uri) as (client, place):
        while True:
            before = position
            last = "" if size is None else offset + size - 1
            wanted = {"Range": f"bytes={position}-{last}"} if position or size is not None else {}
            answer = client.get_object(**place, **wanted, **conditions)
            conditions = {"IfMatch": answer["ETag"]}
            try:
                for chunk in answer["Body"].iter_chunks(_CHUNK_BYTES):
                    position += len(chunk)
                    yield chunk
                return
            except cut as error:
                cuts = 0 if position > before else cuts + 1
                if cuts == _MAX_CUTS:
                    raise StorageError(f"{uri}: {_MAX_CUTS} connections broke off without a byte: {error}") from error
                time.sleep(min(2.0 ** (cuts - 4), _MAX_PAUSE_SECONDS) if cuts else 0)


def put(uri: str, data: bytes) -> None:
    """Write an object in one request: it appears whole, or not at all."""
    with requests_on(uri) as (client, place):
        client.put_object(**place, Body=data)


def create(uri: str, data: bytes) -> bool:
    """Write an object unless it exists; of several processes that do so at once, exactly one gets True."""
    import_boto3()
    from botocore.exceptions import ClientError

    with requests_on(uri) as (client, place):
        for attempt in range(_MAX_CREATE_ATTEMPTS):
            try:
                client.put_object(**place, Body=data, IfNoneMatch="*")
                return True
            except ClientError as error:
                status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
                if status == 412:  # it exists; it is ours if the request was repeated because its answer was lost
                    return read(uri, 0, None) == data
                if status != 409 or attempt == _MAX_CREATE_ATTEMPTS - 1:  # 409: another process is writing it right now
                    raise
    raise AssertionError("unreachable")


def upload(path: str, uri: str) -> None:
    """Upload a local file, a large one in parts; if a part fails, no object appears."""
    with requests_on(uri) as (client, place):
        client.upload_file(path, place["Bucket"], place["Key"])


def delete(uri: str) -> None:
    """Delete an object, if it exists."""
    with requests_on(uri) as (client, place):
        client.delete_object(**place)


def abort_uploads(uri: str) -> None:
    """Abort the uploads in parts below a prefix that killed processes left: invisible, and paid for until then.

    Where the server or the account does not allow it, they are left to the bucket's own rule.
    """
    import_boto3()
    from botocore.exceptions import ClientError

    with requests_on(uri) as (client, place):
        bucket, prefix = place["Bucket"], f"{place['Key']}/"
        try:
            pages = client.get_paginator("list_multipart_uploads").paginate(Bucket=bucket, Prefix=prefix)
            for item in (item for page in pages for item in page.get("Uploads", ())):
                client.abort_multipart_upload(Bucket=bucket, Key=item["Key"], UploadId=item["UploadId"])
        except ClientError as error:
            if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") not in (403, 404, 405, 501):
                raise


def open_ranges(uri: str, from_front: bool = False) -> RangeFile:
    """Open an object for random access; each read is a range request.

    Args:
        uri: the object.
        from_front: whether to fetch ahead what will be read next, if it is read from front to back.

    Raises:
        StorageError: there is no such object.
    """
    found = head(uri)
    if found is None:
        raise MissingError(f"{uri}: no such object")
    kind = SequentialFile if from_front else RangeFile
    return kind(partial(read, uri), found["ContentLength"])
