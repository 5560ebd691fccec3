"""A small S3 in this process, for benchmarks: objects in memory, a latency, refusals now and then, and counts."""

import random
import threading
import time
import urllib.parse
from bisect import bisect_left, bisect_right
from collections import Counter
from http.server import BaseHTTPRequestHandler
from xml.sax.saxutils import escape

from tests.loopback import LoopbackServer, answer

_PAGE = 1000


class SlowS3(LoopbackServer):
    """One bucket's worth of objects by "bucket/key"; a context manager. It checks no signatures.

    Args:
        latency: seconds before each answer.
        fault_rate: fraction of requests that are answered 503.
    """

    def __init__(self, latency: float = 0.0, fault_rate: float = 0.0) -> None:
        self.objects: dict[str, bytes] = {}
        self.requests: Counter[str] = Counter()
        self.num_bytes = 0
        self.most_at_once = self._at_once = 0
        self.latency, self.fault_rate = latency, fault_rate
        self._names: list[str] | None = None
        self._lock = threading.Lock()
        super().__init__(self._handle)

    def put(self, name: str, data: bytes) -> None:
        """Store an object."""
        with self._lock:
            self.objects[name] = data
            self._names = None

    def _handle(self, handler: BaseHTTPRequestHandler) -> None:
        with self._lock:
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            self._answer_request(handler)
        finally:
            with self._lock:
                self._at_once -= 1

    def _answer_request(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        time.sleep(self.latency)
        path, _, query = handler.path.partition("?")
        name = urllib.parse.unquote(path).lstrip("/")
        options = dict(urllib.parse.parse_qsl(query, keep_blank_values=True))
        with self._lock:
            self.requests["LIST" if "list-type" in options else handler.command] += 1
        if random.random() < self.fault_rate:
            self._answer(handler, 503, b"<Error><Code>SlowDown</Code></Error>")
        elif "list-type" in options:
            self._answer(handler, 200, self._page(name.rstrip("/"), options))
        elif handler.command == "PUT":
            taken = handler.headers.get("If-None-Match") == "*" and name in self.objects
            if not taken:
                self.put(name, body)
            self._answer(handler, 412 if taken else 200, b"", ETag=_etag(body))
        elif handler.command == "DELETE":
            with self._lock:
                self.objects.pop(name, None)
                self._names = None
            self._answer(handler, 204, b"")
        elif name not in self.objects:
            self._answer(handler, 404, b"<Error><Code>NoSuchKey</Code></Error>")
        else:
            self._object(handler, self.objects[name])

    def _object(self, handler: BaseHTTPRequestHandler, data: bytes) -> None:
        wanted = handler.headers.get("Range", "")
        if not wanted:
            self._answer(handler, 200, data, ETag=_etag(data))
            return
        first, _, last = wanted.removeprefix("bytes=").partition("-")
        part = data[int(first) : int(last) + 1 if last else None]
        span = f"bytes {first}-{int(first) + len(part) - 1}/{len(data)}"
        self._answer(handler, 206, part, **{"Content-Range": span, "ETag": _etag(data)})

    def _page(self, bucket: str, options: dict[str, str]) -> bytes:
        with self._lock:
            self._names = names = self._names or sorted(self.objects)
        prefix, delimiter = f"{bucket}/{options.get('prefix', '')}", options.get("delimiter", "")
        place = bisect_left(names, options.get("continuation-token", prefix))
        if "start-after" in options:
            place = max(place, bisect_right(names, f"{bucket}/{options['start-after']}"))
        most = min(_PAGE, int(options.get("max-keys", _PAGE)))
        objects: list[str] = []
        folders: list[str] = []
        while place < len(names) and names[place].startswith(prefix) and len(objects) + len(folders) < most:
            folder, slash, _ = names[place][len(prefix) :].partition(delimiter or "\0")
            if delimiter and slash:
                folders.append(prefix + folder + slash)
                place = bisect_left(names, prefix + folder + chr(ord(slash) + 1), place)
            else:
                objects.append(names[place])
                place += 1
        more = place < len(names) and names[place].startswith(prefix)
        rows = "".join(
            f"<Contents><Key>{escape(name[len(bucket) + 1 :])}</Key><Size>{len(self.objects[name])}</Size>"
            f"<ETag>{_etag(self.objects[name])}</ETag></Contents>"
            for name in objects
        )
        rows += "".join(
            f"<CommonPrefixes><Prefix>{escape(name[len(bucket) + 1 :])}</Prefix></CommonPrefixes>" for name in folders
        )
        token = f"<NextContinuationToken>{escape(names[place])}</NextContinuationToken>" if more else ""
        return (
            f"<ListBucketResult><IsTruncated>{str(more).lower()}</IsTruncated>{token}{rows}</ListBucketResult>".encode()
        )

    def _answer(self, handler: BaseHTTPRequestHandler, status: int, data: bytes, **headers: str) -> None:
        with self._lock:
            self.num_bytes += len(data) if handler.command != "HEAD" else 0
        answer(handler, data, status, **headers)


def _etag(data: bytes) -> str:
    return f'"{hash(data) & (1 << 64) - 1:016x}"'
