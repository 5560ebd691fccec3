"""A server on loopback that answers the Hugging Face hub's protocol as far as its client asks: upload, and download.

Large files go the way of Git LFS. The hub's newer way, Xet, is a protocol of its own; the client is told to leave it.
"""

import base64
import hashlib
import json
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.loopback import LoopbackServer

TOKEN = "hf_secret-of-the-test"


class HubServer(LoopbackServer):
    """A hub with repositories of one branch, `main`. Files of weights go the way of large files."""

    def __init__(self) -> None:
        super().__init__(self._respond)
        self.commits: dict[str, dict[str, dict[str, bytes]]] = {}
        """Repository -> commit, the newest last -> path -> content."""
        self.requests: list[tuple[str, str]] = []
        """Method and path of every request."""
        self._large: dict[str, bytes] = {}

    def environment(self, cache: Path, token: str | None = TOKEN) -> dict[str, str]:
        """What the client needs in its environment."""
        found = {"HF_ENDPOINT": self.endpoint, "HF_HOME": str(cache), "HF_HUB_DISABLE_XET": "1"}
        return found | ({"HF_TOKEN": token} if token else {})

    def commit(self, name: str, files: Mapping[str, bytes]) -> str:
        """Add a commit, and return its hash."""
        listing = [(path, hashlib.sha256(content).hexdigest()) for path, content in sorted(files.items())]
        oid = hashlib.sha1(repr(listing).encode()).hexdigest()
        self.commits.setdefault(name, {})[oid] = dict(files)
        return oid

    def file_requests(self) -> list[tuple[str, str]]:
        """The requests for files or about them."""
        return [(method, path) for method, path in self.requests if "/resolve/" in path]

    def _respond(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("Content-Length", 0)))
        parts = [unquote(part) for part in urlsplit(request.path).path.strip("/").split("/")]
        self.requests.append((request.command, request.path))
        if request.command in ("POST", "PUT") and request.headers.get("Authorization") != f"Bearer {TOKEN}":
            refused = parts[0] != "large"  # uploads of large files go to a store of their own, without the token
            _send(request, 401, b"{}", {}) if refused else self._write(request, parts, body)
        elif request.command in ("POST", "PUT"):
            self._write(request, parts, body)
        else:
            self._read(request, parts)

    def _write(self, request: BaseHTTPRequestHandler, parts: list[str], body: bytes) -> None:
        match parts:
            case ["large", oid]:
                assert hashlib.sha256(body).hexdigest() == oid
                self._large[oid] = body
                _send(request, 200, b"", {})
            case ["api", "repos", "create"]:
                wanted = json.loads(body)
                name = f"{wanted['organization']}/{wanted['name']}"
                self.commits.setdefault(name, {})
                _send_json(request, {"url": f"{self.endpoint}/{name}", "name": name, "id": name})
            case ["api", "validate-yaml"]:
                _send_json(request, {"errors": [], "warnings": []})
            case ["api", "models", _, _, "preupload", "main"]:
                modes = [
                    {
                        "path": file["path"],
                        "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                        "shouldIgnore": False,
                    }
                    for file in json.loads(body)["files"]
                ]
                _send_json(request, {"files": modes})
            case [_, _, "info", "lfs", "objects", "batch"]:
                objects = [
                    {**wanted, "actions": {"upload": {"href": f"{self.endpoint}/large/{wanted['oid']}"}}}
                    for wanted in json.loads(body)["objects"]
                ]
                _send_json(request, {"transfer": "basic", "objects": objects})
            case ["api", "models", org, name, "commit", "main"]:
                oid = self.commit(f"{org}/{name}", self._files(body))
                url = f"{self.endpoint}/{org}/{name}/commit/{oid}"
                _send_json(request, {"commitOid": oid, "commitUrl": url, "success": True})
            case _:
                _send(request, 404, b"{}", {})

    def _files(self, body: bytes) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                found[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                found[value["path"]] = self._large[value["oid"]]
        return found

    def _read(self, request: BaseHTTPRequestHandler, parts: list[str]) -> None:
        api = parts[:2] == ["api", "models"]
        org, name, *rest = parts[2:] if api else parts
        commits = self.commits.get(f"{org}/{name}")
        if not commits:
            _send(request, 401, b"{}", {"X-Error-Code": "RepoNotFound"})
            return
        wanted = rest[1] if len(rest) > 1 else "main"
        oid = list(commits)[-1] if wanted == "main" else wanted
        if oid not in commits:
            _send(request, 404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        elif api and rest[:1] == ["tree"]:
            _send_json(request, [_entry(path, content) for path, content in commits[oid].items()])
        elif api:
            siblings = [{"rfilename": path} for path in commits[oid]]
            _send_json(request, {"id": f"{org}/{name}", "sha": oid, "siblings": siblings, "tags": []})
        elif (content := commits[oid].get("/".join(rest[2:]))) is not None:
            etag = hashlib.sha256(content).hexdigest()
            _send(request, 200, content, {"ETag": f'"{etag}"', "X-Repo-Commit": oid})
        else:
            _send(request, 404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": oid})


def _entry(path: str, content: bytes) -> dict[str, Any]:
    digest = hashlib.sha256(content).hexdigest()
    entry: dict[str, Any] = {"type": "file", "path": path, "size": len(content), "oid": digest[:40]}
    if path.endswith(".safetensors"):
        entry["lfs"] = {"oid": digest, "size": len(content), "pointerSize": 134}
    return entry


def _send_json(request: BaseHTTPRequestHandler, content: object) -> None:
    _send(request, 200, json.dumps(content).encode(), {"Content-Type": "application/json"})


def _send(request: BaseHTTPRequestHandler, status: int, body: bytes, headers: Mapping[str, str]) -> None:
    request.send_response(status)
    for name, value in headers.items():
        request.send_header(name, value)
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    if request.command != "HEAD":
        request.wfile.write(body)
