"""The wheel holds all of the program and nothing else, and runs outside the checkout."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("sr3core", "pipelines", "tune", "cluster")
PROGRAM = "sr3_on_ray.py"
"""What the `sr3` script imports."""
DATA = (
    "pipelines/demo_photos",
    "pipelines/models",
    "pipelines/playground/pages",
    "pipelines/registry/templates",
    "pipelines/report/templates",
    "pipelines/study/pages",
)
"""Folders of which every file is read at run time; the launch files in cluster/ are not."""


def tracked() -> list[str]:
    """Files of the packages, without what git ignores."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *PACKAGES, PROGRAM],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    return [name for name in listed.stdout.splitlines() if (ROOT / name).exists()]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from a copy, since a build in the checkout would also pack what an earlier one left in build/."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in ["pyproject.toml", "README.md", "LICENSE", *tracked()]:
        (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / "source" / name)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "./source"]
    subprocess.run(build, cwd=folder, check=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory) -> Path:
    """The wheel in an environment of its own; its dependencies are those of this one, after it on the path.

    Only the folder is put on the path, so that this environment's .pth files, one of which leads to the checkout, are
    not read.
    """
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", str(wheel)]
    subprocess.run(install, check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return folder


def run(environment: Path, tmp_path: Path, *command: str) -> str:
    """Standard output of a program of the environment, started outside the checkout."""
    settings = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        [str(environment / "bin" / command[0]), *command[1:]],
        cwd=tmp_path,
        env=settings,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_module_and_every_data_file_is_in_it_and_nothing_else(wheel):
    expected = {name for name in tracked() if name.endswith(".py") or name.startswith(DATA)}
    assert all(any(name.startswith(folder) for name in expected) for folder in DATA)
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert packed == expected


def test_the_code_comes_from_it(environment, tmp_path):
    program = f"import {', '.join(PACKAGES)}; print(*(m.__path__[0] for m in ({', '.join(PACKAGES)})), sep='\\n')"
    folders = run(environment, tmp_path, "python", "-c", program).split()
    assert len(folders) == len(PACKAGES)
    assert all(Path(folder).is_relative_to(environment) for folder in folders), folders


def test_it_runs_outside_the_checkout(environment, tmp_path):
    assert "would run the demo" in run(environment, tmp_path, "sr3", "demo", "--dry-run")
    assert "--data" in run(environment, tmp_path, "sr3", "train", "small-16-64", "--help")
    assert not list(tmp_path.iterdir()), "asking leaves nothing behind"
