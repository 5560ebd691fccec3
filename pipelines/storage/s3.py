"""Objects on S3 with boto3: listing, resumable range reads, whole-object writes; see pipelines.storage.uris."""

import contextlib
import os
import re
import socket
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from pipelines.storage.local_files import describe_error, discard
from pipelines.storage.range_file import RangeFile
from sr3core.errors import MissingError, StorageError

_MAX_CUTS = 8
"""Connections of one read that may break off one after another without a single byte."""
_MAX_PAUSE_SECONDS = 4.0
_PROBE_SECONDS = 5.0
_CHUNK_BYTES = 1 << 17
"""Bytes that are read at a time, and so the most that a cut connection loses."""
_MAX_CREATE_ATTEMPTS = 8
HEADERS = {
    "RequestPayer": "AWS_REQUEST_PAYER",
    "ServerSideEncryption": "AWS_SERVER_SIDE_ENCRYPTION",
    "SSEKMSKeyId": "AWS_SSE_KMS_KEY_ID",
}
"""Parameter of requests -> environment variable that sets it, of a name that other S3 clients have for it, too."""
_MAX_CONNECTIONS = 64
_EXPIRED = "; renew the credentials, as with `aws sso login`, and run the same command again: what is finished is kept"
_REMEDIES = {
    "NoSuchBucket": "; create the bucket first",
    "SlowDown": "; the bucket throttles: run the same command again later, or with fewer workers",
    **dict.fromkeys(("ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestExpired"), _EXPIRED),
}
"""Error code -> what the user can do."""
_OPTIONS = re.compile(r"\?(?=.*endpoint_override=)(?:(?:endpoint_override|scheme)=[^?&]*(?:&|$))+$")
_MISSPELLED = re.compile(r"\?endpoint\w*=", re.IGNORECASE)


_IMPORTING = threading.Lock()


def _import_boto3() -> None:
    """Import the library in one thread: of several that use it first at the same time, some would see half of it."""
    with _IMPORTING:
        import boto3.session  # noqa: F401


@dataclass(frozen=True, slots=True)
class S3Location:
    """An object or prefix on S3."""

    bucket: str
    """Bucket."""
    key: str
    """Object key or prefix, without trailing slashes; it may begin with one, and hold "?" and "#"."""
    endpoint: str | None
    """Endpoint URL of a server other than Amazon's; None takes it from the environment."""


def split_options(uri: str) -> tuple[str, str]:
    """Split an s3:// URI into its address and the options behind that, "" or "?endpoint_override=...".

    Keys may hold question marks, as those of crawled images do (photo.jpg?width=500): only known options at the end of
    the URI are split off.
    """
    found = _OPTIONS.search(uri)
    return (uri[: found.start()], found[0]) if found else (uri, "")


def parse(uri: str) -> S3Location:
    """Split an s3:// URI.

    Raises:
        StorageError: it names no bucket, or misspells the option.
    """
    address, query = split_options(uri)
    bucket, _, key = address.removeprefix("s3://").partition("/")
    if not bucket or _MISSPELLED.search(address):
        raise StorageError(f"{uri} names no bucket; write s3://bucket/prefix[?endpoint_override=http://host:port]")
    options = dict(urllib.parse.parse_qsl(query.removeprefix("?")))
    endpoint = options.get("endpoint_override")
    if endpoint and "://" not in endpoint:
        endpoint = f"{options.get('scheme', 'https')}://{endpoint}"
    return S3Location(bucket, key.rstrip("/"), endpoint)


def probe(uri: str) -> None:
    """Check that something listens where the objects are, if they are not Amazon's.

    A request to a server that is down is repeated for a minute; that is right for a server that restarts during hours
    of work, and wrong for an address that never was one's.

    Raises:
        StorageError: nothing does.
    """
    endpoint = parse(uri).endpoint or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if not endpoint:
        return
    try:
        parts = urllib.parse.urlsplit(endpoint)
        host, port = parts.hostname or "", parts.port or (80 if parts.scheme == "http" else 443)
        if parts.scheme in urllib.request.getproxies() and not urllib.request.proxy_bypass(host):
            return  # the proxy would have to be asked
        socket.create_connection((host, port), _PROBE_SECONDS).close()
    except (OSError, ValueError) as error:
        raise StorageError(
            f"{uri}: no S3 server answers at {endpoint}: {getattr(error, 'strerror', None) or error}; correct"
            " endpoint_override (or AWS_ENDPOINT_URL), or start the server"
        ) from error


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
    location = parse(uri)
    prefix = f"{location.key}/" if location.key else ""
    with _s3_errors(uri):
        pages = _client(location.endpoint).get_paginator("list_objects_v2")
        for page in pages.paginate(Bucket=location.bucket, Prefix=prefix):
            for item in page.get("Contents", ()):
                if not is_marker(item):
                    yield item["Key"][len(prefix) :], item


def is_marker(item: dict[str, Any]) -> bool:
    """Whether an object of a listing is nothing but a folder that a console shows."""
    return item["Key"].endswith("/") and not item["Size"]


def head(uri: str) -> dict[str, Any] | None:
    """The server's metadata of an object; None if there is no such object."""
    _import_boto3()
    from botocore.exceptions import ClientError

    location = parse(uri)
    if not location.key:
        return None
    with _s3_errors(uri):
        try:
            return _client(location.endpoint).head_object(Bucket=location.bucket, Key=location.key)
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
    _import_boto3()
    from botocore import exceptions as failures
    from urllib3.exceptions import HTTPError

    location = parse(uri)
    cut = (failures.IncompleteReadError, failures.ResponseStreamingError, failures.ReadTimeoutError, HTTPError)
    position, conditions, cuts = offset, {}, 0
    with _s3_errors(uri):
        while True:
            before = position
            last = "" if size is None else offset + size - 1
            wanted = {"Range": f"bytes={position}-{last}"} if position or size is not None else {}
            answer = _client(location.endpoint).get_object(
                Bucket=location.bucket, Key=location.key, **wanted, **conditions
            )
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
    location = parse(uri)
    with _s3_errors(uri):
        _client(location.endpoint).put_object(Bucket=location.bucket, Key=location.key, Body=data)


def create(uri: str, data: bytes) -> bool:
    """Write an object unless it exists; of several processes that do so at once, exactly one gets True."""
    _import_boto3()
    from botocore.exceptions import ClientError

    location = parse(uri)
    with _s3_errors(uri):
        for attempt in range(_MAX_CREATE_ATTEMPTS):
            try:
                _client(location.endpoint).put_object(
                    Bucket=location.bucket, Key=location.key, Body=data, IfNoneMatch="*"
                )
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
    location = parse(uri)
    with _s3_errors(uri):
        _client(location.endpoint).upload_file(path, location.bucket, location.key)


def delete(uri: str) -> None:
    """Delete an object, if it exists."""
    location = parse(uri)
    with _s3_errors(uri):
        _client(location.endpoint).delete_object(Bucket=location.bucket, Key=location.key)


def abort_uploads(uri: str) -> None:
    """Abort the uploads in parts below a prefix that killed processes left: invisible, and paid for until then.

    Where the server or the account does not allow it, they are left to the bucket's own rule.
    """
    _import_boto3()
    from botocore.exceptions import ClientError

    place = parse(uri)
    client = _client(place.endpoint)
    with _s3_errors(uri):
        try:
            pages = client.get_paginator("list_multipart_uploads").paginate(Bucket=place.bucket, Prefix=f"{place.key}/")
            for item in (item for page in pages for item in page.get("Uploads", ())):
                client.abort_multipart_upload(Bucket=place.bucket, Key=item["Key"], UploadId=item["UploadId"])
        except ClientError as error:
            if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") not in (403, 404, 405, 501):
                raise


def open_ranges(uri: str) -> RangeFile:
    """Open an object for random access; each read is a range request.

    Raises:
        StorageError: there is no such object.
    """
    found = head(uri)
    if found is None:
        raise MissingError(f"{uri}: no such object")
    return RangeFile(partial(read, uri), found["ContentLength"])


@contextlib.contextmanager
def requests_on(uri: str) -> Iterator[tuple[Any, dict[str, str]]]:
    """The client for a URI's server and the parameters Bucket and Key; what requests raise becomes a StorageError."""
    location = parse(uri)
    with _s3_errors(uri):
        yield _client(location.endpoint), {"Bucket": location.bucket, "Key": location.key}


@lru_cache(maxsize=8)
def _client(endpoint: str | None) -> Any:
    _import_boto3()
    from boto3.session import Session
    from botocore.config import Config

    retries = {"mode": "standard", "total_max_attempts": int(os.environ.get("AWS_MAX_ATTEMPTS", "8"))}
    config = Config(retries=retries, connect_timeout=10, read_timeout=60, max_pool_connections=_MAX_CONNECTIONS)  # type: ignore[arg-type]
    client = Session().client("s3", endpoint_url=endpoint, config=config)
    client.meta.events.register("provide-client-params.s3", _with_headers)
    return client


def _with_headers(params: dict[str, Any], model: Any, **_: Any) -> dict[str, Any]:
    """A request's parameters with those that the environment asks for, if the request knows them."""
    asked = {name: os.environ.get(variable) for name, variable in HEADERS.items()}
    return {name: value for name, value in asked.items() if value and name in model.input_shape.members} | params


@contextlib.contextmanager
def _s3_errors(uri: str) -> Iterator[None]:
    _import_boto3()
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except (BotoCoreError, ClientError, Boto3Error) as error:
        code = error.response.get("Error", {}).get("Code") if isinstance(error, ClientError) else ""
        kind = MissingError if code in ("NoSuchKey", "InvalidRange") else StorageError
        raise kind(f"{uri}: {error}{_remedy(error)}") from error


def _remedy(error: BaseException) -> str:
    """What the user can do about an error, if that is known."""
    _import_boto3()
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import ClientError, NoCredentialsError

    if isinstance(error, Boto3Error) and error.__context__ is not None:  # an upload's error wraps the server's
        return _remedy(error.__context__)
    answer = error.response if isinstance(error, ClientError) else {}
    if answer.get("Error", {}).get("Code") in _REMEDIES:
        return _REMEDIES[answer["Error"]["Code"]]
    if isinstance(error, NoCredentialsError) or answer.get("ResponseMetadata", {}).get("HTTPStatusCode") == 403:
        return (
            "; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, to an account that may list, read,"
            " write and delete there (s3:ListBucket, GetObject, PutObject, DeleteObject)"
        )
    return ""
