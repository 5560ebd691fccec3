"""cluster/docker/Dockerfile without Docker: its text, and the steps that need neither a registry nor root."""

import json
import os
import re
import shutil
import subprocess
import sysconfig
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
    assert locks == [f"requirements/{name}.txt" for name in ("runtime", "weights", "torch", "sbom")]
    assert all((ROOT / lock).exists() for lock in locks)
    assert "--no-deps --require-hashes -r requirements/runtime.txt" in TEXT
    images = {
        tag
        for path in (ROOT / "cluster").rglob("*.yaml")
        for tag in re.findall(r"REGISTRY/sr3:([\w.]+)-", path.read_text())
    }
    assert images == {PROJECT["project"]["version"]}


def build_steps() -> list[tuple[str, str]]:
    """The instructions of the first stage."""
    every = instructions()
    first, second = (index for index, (name, _) in enumerate(every) if name == "FROM")
    return every[first + 1 : second]


def needs_a_registry(step: str) -> bool:
    return "-r requirements/" in step or "apt-get" in step


def test_every_step_is_a_shell_command_and_reads_files_that_were_copied():
    for name, words in instructions():
        if name == "RUN":
            subprocess.run(["sh", "-n", "-c", words], check=True)
            for path in re.findall(r"-r (\S+)", words):
                assert (ROOT / path).is_file(), path


def test_the_build_stage_makes_an_environment_in_which_sr3_runs(tmp_path):
    """Its steps in their order, on the copied files alone. What the locks install is this environment's instead."""
    prefix, source, home = tmp_path / "sr3", tmp_path / "src", tmp_path / "home"
    environment = {"PATH": f"{prefix}/bin:{os.environ['PATH']}", "HOME": str(home)}
    source.mkdir()
    home.mkdir()
    for name, words in build_steps():
        if name == "COPY":
            *files, target = words.split()
            for file in files:
                copy_into(ROOT / file, source / target if len(files) == 1 else source / target / file)
        elif name == "RUN" and needs_a_registry(words):
            (site,) = prefix.glob("lib/python*/site-packages")
            (site / "locked.pth").write_text(sysconfig.get_path("purelib"))
            shutil.rmtree(site / "setuptools", ignore_errors=True)  # the lock replaces the one that Python brings
        elif name == "RUN":
            step = words.replace("/opt/sr3", str(prefix)).replace("/opt/sbom/bin/", f"{sysconfig.get_path('scripts')}/")
            done = subprocess.run(["sh", "-c", step], cwd=source, env=environment, capture_output=True, text=True)
            assert done.returncode == 0, done.stdout + done.stderr
    shutil.rmtree(source)
    check_sbom(prefix / "sbom.json")
    assert os.access(prefix / "keep-logs.sh", os.R_OK)
    for command in ("sr3 --help", "sr3 train small-16-64 --help", "python -m cluster --version"):
        done = subprocess.run(command.split(), cwd=home, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    where = (
        "import cluster.cli, pathlib, pipelines.report;"
        "templates = pathlib.Path(pipelines.report.__file__).parent.glob('templates/*');"
        "print(cluster.cli.__file__, *templates, sep='\\n')"
    )
    found = subprocess.run(
        ["python", "-c", where], cwd=home, env=environment, capture_output=True, text=True, check=True
    )
    installed = found.stdout.splitlines()
    assert all(path.startswith(str(prefix)) for path in installed), "the image's own files, not this checkout's"
    assert len(installed) > 1, "templates are package data"


def check_sbom(path: Path) -> None:
    """It names this project and everything that the lock installs, by version, as scanners read it."""
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content["bomFormat"] == "CycloneDX"
    found = {component["name"].lower(): component["version"] for component in content["components"]}
    assert found["sr3-on-ray"] == PROJECT["project"]["version"]
    locked = re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "requirements" / "runtime.txt").read_text(), flags=re.MULTILINE)
    assert {"ray", "pillow"} <= {name for name, _ in locked}
    for name, version in locked:
        if name in found:  # the rest is for other systems
            assert found[name] == version
    assert {"ray", "pillow", "torch"} <= found.keys()
    assert any(component.get("licenses") for component in content["components"])


def test_triton_would_find_a_compiler_and_pythons_header():
    installed = next(words for name, words in instructions() if name == "RUN" and "apt-get install" in words).split()
    assert "g++" in installed
    assert "python:3" in TEXT, "the official images bring Python's headers; Debian's python3 does not"


def copy_into(file: Path, target: Path) -> None:
    if file.is_dir():
        shutil.copytree(file, target, ignore=shutil.ignore_patterns("__pycache__"))
    elif target.is_dir():
        shutil.copyfile(file, target / file.name)
    else:
        shutil.copyfile(file, target)
