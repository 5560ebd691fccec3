"""pyproject.toml's ranges, the locks that pin them and what is installed agree; the audit finds what an index says."""

import importlib.util
import json
import re
import subprocess
import sys
import tomllib
from http.server import BaseHTTPRequestHandler
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.loopback import LoopbackServer, answer

ROOT = Path(__file__).resolve().parents[1]
REQUIREMENTS = ROOT / "requirements"
LOCKS = ("dev.txt", "runtime.txt", "sbom.txt", "weights.txt")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
DIRECT = [Requirement(text) for text in PROJECT["dependencies"]]
OPTIONAL = [
    requirement
    for requirement in map(Requirement, sorted({text for extra in EXTRAS.values() for text in extra}))
    if requirement.name != PROJECT["name"]  # dev names extras of ours
]
TORCH = Requirement((REQUIREMENTS / "torch.txt").read_text().splitlines()[-1])


def pins(name: str) -> dict[str, Requirement]:
    """Package -> its line in a file below requirements/, as far as it concerns this platform."""
    lines = (REQUIREMENTS / name).read_text().splitlines()
    found = (Requirement(line.rstrip(" \\")) for line in lines if re.match(r"\w", line))
    here = (requirement for requirement in found if requirement.marker is None or requirement.marker.evaluate())
    return {canonicalize_name(requirement.name): requirement for requirement in here}


def version(requirement: Requirement) -> str:
    """The one version that an exact pin admits."""
    (clause,) = requirement.specifier
    assert clause.operator == "=="
    return clause.version


def ends(requirement: Requirement) -> dict[str, Version]:
    """Operator -> version of each clause of a range."""
    return {clause.operator: Version(clause.version) for clause in requirement.specifier}


def test_nothing_that_is_installed_slows_the_start_of_each_process_of_ray():
    imported = subprocess.run(
        [sys.executable, "-c", "import sys, ray; print(*sys.modules)"], capture_output=True, text=True
    )
    modules = imported.stdout.split()
    assert "jsonschema" in modules
    assert "lark" not in modules, (
        "rfc3987-syntax builds a parser, for a second of CPU time in every process: see Makefile"
    )


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

    def respond(handler: BaseHTTPRequestHandler) -> None:
        found = answers.get(handler.path.split("/")[1], [])
        answer(handler, json.dumps({"vulnerabilities": found}).encode())

    with LoopbackServer(respond) as server:
        yield server.endpoint, answers


@pytest.mark.parametrize("requirement", [*DIRECT, *OPTIONAL], ids=str)
def test_every_dependency_is_a_range_with_both_ends_or_an_exact_version(requirement):
    """Exact are packages of which a data file is used, and nothing of their code."""
    assert set(ends(requirement)) in ({">=", "<"}, {"=="})
    if "==" in ends(requirement):
        assert requirement.name.endswith(("_models", "-model", "efficientnet-lite-pytorch"))


@pytest.mark.parametrize("requirement", [r for r in DIRECT if r.name != "torch"], ids=str)
def test_the_lower_ends_are_what_make_test_lowest_installs(requirement):
    assert Version(version(pins("lowest.txt")[canonicalize_name(requirement.name)])) == ends(requirement)[">="]


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_pins_and_hashes_every_package_and_names_no_machine(lock):
    text = (REQUIREMENTS / lock).read_text()
    entries = re.split(r"^(?=\w)", text, flags=re.MULTILINE)[1:]
    assert len(entries) >= len(pins(lock))
    for entry in entries:
        assert re.match(r"[\w.-]+(\[[\w,]+\])?==\S+ .*\\\n +--hash=sha256:[0-9a-f]{64}", entry), entry
    assert "torch" not in pins(lock)
    assert not re.search(r"://|file:|index-url|find-links|trusted-host", text)


def test_the_locks_agree_and_lie_within_the_ranges():
    development, runtime = pins("dev.txt"), pins("runtime.txt")
    assert {name: str(pin.specifier) for name, pin in runtime.items()}.items() <= {
        name: str(pin.specifier) for name, pin in development.items()
    }.items()
    for requirement in DIRECT:
        pin = TORCH if requirement.name == "torch" else runtime[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version(pin)), requirement
    for extra in EXTRAS:
        for requirement in map(Requirement, EXTRAS[extra]):
            if requirement.name != PROJECT["name"]:
                assert requirement.specifier.contains(version(development[canonicalize_name(requirement.name)]))


@pytest.mark.parametrize("pin", [*pins("dev.txt").values(), *pins("weights.txt").values(), TORCH], ids=str)
def test_what_is_installed_is_what_is_locked(pin):
    assert metadata.version(pin.name).partition("+")[0] == version(pin)


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
