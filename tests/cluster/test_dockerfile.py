"""What can be known of cluster/docker/Dockerfile without building it."""

import re
import tomllib
from fnmatch import fnmatch
from pathlib import Path

from packaging.specifiers import SpecifierSet

from sr3core.features.extractors import WEIGHTS_PACKAGE

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "cluster" / "docker" / "Dockerfile").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def instructions() -> list[tuple[str, str]]:
    """(instruction, its words) in order; continued lines are joined, comments left out."""
    lines = [line for line in TEXT.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [tuple(line.split(maxsplit=1)) for line in joined.splitlines() if line.strip()]  # type: ignore[misc]


def test_it_reads_as_a_dockerfile():
    known = {"ARG", "FROM", "ENV", "RUN", "WORKDIR", "COPY", "USER", "ENTRYPOINT", "CMD"}
    assert {name for name, _ in instructions()} <= known


def test_the_base_is_pinned_to_a_python_that_the_project_takes():
    (base,) = (words for name, words in instructions() if name == "ARG" and words.startswith("BASE="))
    version = re.fullmatch(r"BASE=python:(3\.\d+)\.\d+-slim-\w+", base)
    assert version, base
    assert SpecifierSet(PROJECT["project"]["requires-python"]).contains(version[1])
    assert [words.split()[0] for name, words in instructions() if name == "FROM"] == ["${BASE}", "${BASE}"]


def test_it_ends_as_a_user_without_rights():
    users = [words for name, words in instructions() if name == "USER"]
    assert users == ["1000:1000"], "a number, so that runAsNonRoot can be checked"
    assert "useradd --uid 1000" in TEXT


def test_no_secret_goes_in_and_the_token_is_wanted():
    assert not re.search(r"(TOKEN|SECRET|PASSWORD|_KEY)\b\S*=", TEXT)
    assert "RAY_AUTH_MODE=token" in TEXT


def test_what_is_copied_is_there_and_gets_past_dockerignore():
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    copied = [words.split() for name, words in instructions() if name == "COPY" and "--from" not in words]
    sources = [source for words in copied for source in words[:-1]]
    assert set(sources) == set(allowed)
    for source in sources:
        assert (ROOT / source).exists(), source
    for secret in (".git", "runs", ".venv", "data"):
        assert not any(fnmatch(secret, pattern) for pattern in allowed)


def test_every_version_comes_from_one_place():
    requirements = ROOT / "requirements"
    assert WEIGHTS_PACKAGE in (requirements / "weights.in").read_text().splitlines()
    assert re.findall(r"[\w-]+==[\w.]+", TEXT) == [], "versions are in the locks"
    locks = re.findall(r"-r (requirements/\S+)", TEXT)
    assert locks == ["requirements/runtime.txt", "requirements/weights.txt", "requirements/torch.txt"]
    assert all((ROOT / lock).exists() for lock in locks)
    assert "--no-deps --require-hashes -r requirements/runtime.txt" in TEXT
    images = {
        tag
        for path in (ROOT / "cluster").rglob("*.yaml")
        for tag in re.findall(r"REGISTRY/sr3:([\w.]+)-", path.read_text())
    }
    assert images == {PROJECT["project"]["version"]}
