"""What is installed is what is pinned, and the audit finds what an index says."""

import importlib.util
import json
import re
import threading
import tomllib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = PROJECT["project"]["optional-dependencies"]
OWN_EXTRAS = {f"{PROJECT['project']['name']}[{name}]" for name in EXTRAS}
PINS = [
    *PROJECT["project"]["dependencies"],
    *(pin for extra in EXTRAS.values() for pin in extra if pin not in OWN_EXTRAS),  # dev names an extra of ours
]


@pytest.fixture(scope="module")
def audit():
    spec = importlib.util.spec_from_file_location("audit", ROOT / ".ci" / "audit.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def index():
    """A package index with the public one's JSON API, on loopback: `answers` is package -> vulnerabilities."""
    answers: dict[str, list] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps({"vulnerabilities": answers.get(self.path.split("/")[1], [])}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}", answers
    server.shutdown()


@pytest.mark.parametrize("pin", PINS)
def test_every_dependency_is_pinned_and_installed_as_pinned(pin):
    match = re.fullmatch(r"([\w.-]+)(?:\[[\w,]+\])?==([\w.]+)", pin)
    assert match, f"{pin} is no exact pin"
    try:
        installed = metadata.version(match[1]).partition("+")[0]
    except metadata.PackageNotFoundError:
        assert pin not in PROJECT["project"]["dependencies"]
        pytest.skip(f"{match[1]} is optional, and not installed")
    assert installed == match[2]


def test_the_audit_passes_where_nothing_is_known(audit, index, capsys):
    url, _ = index
    assert audit.main(["--strict", "--index", url]) == 0
    assert "0 with known vulnerabilities" in capsys.readouterr().out


def test_the_audit_fails_on_an_advisory_unless_it_is_accepted(audit, index, capsys, monkeypatch):
    url, answers = index
    answers["pillow"] = [{"id": "PYSEC-0000-1", "fixed_in": ["99.0"], "withdrawn": None}]
    answers["torch"] = [{"id": "PYSEC-0000-2", "fixed_in": [], "withdrawn": "2026-01-01"}]
    assert audit.main(["--index", url]) == 1
    output = capsys.readouterr().out
    assert "PYSEC-0000-1 (fixed in 99.0)" in output
    assert "PYSEC-0000-2" not in output, "it was withdrawn"
    monkeypatch.setitem(audit.ACCEPTED, "PYSEC-0000-1", "not our code path")
    assert audit.main(["--index", url]) == 0


def test_an_index_that_is_away_is_said_and_fails_only_when_strict(audit, capsys):
    nowhere = ["--index", "http://127.0.0.1:1"]
    assert audit.main(nowhere) == 0
    assert "NOT DONE" in capsys.readouterr().out
    assert audit.main([*nowhere, "--strict"]) == 1
