"""The way to an S3 server with boto3: what a URI says, the client, and what its errors mean to the user."""

import contextlib
import os
import re
import socket
import threading
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from sr3core.errors import MissingError, StorageError

_PROBE_SECONDS = 5.0
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


def import_boto3() -> None:
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


@contextlib.contextmanager
def requests_on(uri: str) -> Iterator[tuple[Any, dict[str, str]]]:
    """The client for a URI's server and the parameters Bucket and Key; what requests raise becomes a StorageError."""
    location = parse(uri)
    with _s3_errors(uri):
        yield client_for(location.endpoint), {"Bucket": location.bucket, "Key": location.key}


@lru_cache(maxsize=8)
def client_for(endpoint: str | None) -> Any:
    """The client for an endpoint; None for the environment's."""
    import_boto3()
    from boto3.session import Session
    from botocore.config import Config
    from botocore.session import Session as CoreSession

    core = CoreSession()
    # Times stay text: to parse them would take three fifths of the CPU time of a listing, and nothing here reads them.
    core.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=str)

    retries = {"mode": "standard", "total_max_attempts": int(os.environ.get("AWS_MAX_ATTEMPTS", "8"))}
    config = Config(retries=retries, connect_timeout=10, read_timeout=60, max_pool_connections=_MAX_CONNECTIONS)  # type: ignore[arg-type]
    client = Session(botocore_session=core).client("s3", endpoint_url=endpoint, config=config)
    client.meta.events.register("provide-client-params.s3", _with_headers)
    return client


def _with_headers(params: dict[str, Any], model: Any, **_: Any) -> dict[str, Any]:
    """A request's parameters with those that the environment asks for, if the request knows them."""
    asked = {name: os.environ.get(variable) for name, variable in HEADERS.items()}
    return {name: value for name, value in asked.items() if value and name in model.input_shape.members} | params


@contextlib.contextmanager
def _s3_errors(uri: str) -> Iterator[None]:
    import_boto3()
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
    import_boto3()
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
