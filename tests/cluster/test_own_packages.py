"""Files of one's own with the names of this program's packages are named, before anything is imported from them."""

import subprocess
import sys
from pathlib import Path

import pytest

from cluster.exits import DONE, FAILURE
from cluster.own_packages import PACKAGES
from cluster.session import ray_session
from sr3core.errors import Sr3Error
from tests.commands import ROOT, clean_environment

SR3 = ["-c", "import sys; from sr3_on_ray import main; sys.exit(main())"]
MODULE = ["-m", "cluster"]


def run(command: list[str], folder: Path, first: Path) -> "subprocess.CompletedProcess[str]":
    """`--version`, in a folder that Python does not search, and with another one in PYTHONPATH."""
    return subprocess.run(
        [sys.executable, "-P", *command, "--version"],
        cwd=folder,
        env=clean_environment(PYTHONPATH=f"{first}:{ROOT}"),
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("kind", ["file", "package"])
@pytest.mark.parametrize(("command", "name"), [(SR3, name) for name in PACKAGES] + [(MODULE, n) for n in PACKAGES[:3]])
def test_a_file_of_ones_own_is_named(command, name, kind, tmp_path):
    own = tmp_path / (f"{name}.py" if kind == "file" else f"{name}/__init__.py")
    own.parent.mkdir(exist_ok=True)
    own.write_text("raise RuntimeError('what is in the way must not run')")
    done = run(command, tmp_path, first=tmp_path)
    assert (done.returncode, done.stdout) == (FAILURE, "")
    assert done.stderr == (
        f"sr3: {own} is in the way of this program's own package {name!r}, since Python finds it first; rename it, or"
        " leave its folder out of PYTHONPATH\n"
    )


@pytest.mark.parametrize("command", [SR3, MODULE])
def test_files_elsewhere_and_other_names_do_not_matter(command, tmp_path):
    (tmp_path / "here").mkdir()
    for name in PACKAGES:
        (tmp_path / "here" / f"{name}.py").touch()
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / "tuner.py").touch()
    done = run(command, tmp_path / "here", tmp_path / "first")
    assert (done.returncode, done.stderr) == (DONE, "")


def test_what_rays_workers_would_find_in_the_current_folder_is_named_before_it_starts(tmp_path, monkeypatch):
    (tmp_path / "tune.py").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with (
        pytest.raises(
            Sr3Error, match=r"/tune\.py is in the way .*'tune', since Python finds it first in Ray's workers"
        ),
        ray_session(),
    ):
        pass
