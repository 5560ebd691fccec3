"""The only reasons for which a test may be skipped, and where: any other skip fails the test.

What `make setup` installs is never missing for a good reason, so no reason here names a Python package.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.processes import can_mount

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@dataclass(frozen=True)
class Allowed:
    """A reason to skip."""

    reason: str
    """Regular expression, found in what the test gives as its reason."""
    where: Callable[[], bool]
    """Whether this machine is one where the reason holds."""
    untested: str
    """What is not tested then."""


def find_browser() -> str | None:
    """Path of a Chromium of this machine; CHROMIUM names another one."""
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)


def find_postgres() -> Path | None:
    """Folder of PostgreSQL's own programs, which Debian keeps off the path."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    on_path = shutil.which("initdb")
    return found[-1].parent if found else Path(on_path).parent if on_path else None


@cache
def find_imagemagick() -> tuple[str, ...] | None:
    """ImageMagick's command that converts many files, of version 7 or 6."""
    for command in (("magick", "mogrify"), ("mogrify",)):
        if shutil.which(command[0]):
            version = subprocess.run([*command, "-version"], capture_output=True, text=True)
            if version.stdout.startswith("Version: ImageMagick"):
                return command
    return None


def shared_folder() -> Path:
    """What some machines have beside the repository: sample images and the paper's text."""
    return Path(__file__).resolve().parents[2] / "shared"


ALLOWED = (
    Allowed("no Chromium on this machine", lambda: find_browser() is None, "the report and the study in a browser"),
    Allowed("ImageMagick is not installed", lambda: find_imagemagick() is None, "image files against ImageMagick"),
    Allowed("redis-server is not installed", lambda: shutil.which("redis-server") is None, "a restart of Ray's head"),
    Allowed("rsync is not installed", lambda: shutil.which("rsync") is None, "the logs' sidecar on Kubernetes"),
    Allowed(
        "Prometheus is not installed", lambda: shutil.which("promtool") is None, "alerts and the dashboard's queries"
    ),
    Allowed("PostgreSQL is not installed", lambda: find_postgres() is None, "a study in PostgreSQL"),
    Allowed("needs a private mount", lambda: not can_mount(), "full and read-only disks"),
    Allowed("mount namespaces are not permitted", lambda: not can_mount(), "full and read-only disks of a study"),
    Allowed("no setpriv", lambda: shutil.which("setpriv") is None, "a read-only file of a study"),
    Allowed("there is no compiler", lambda: shutil.which("g++") is None, "torch.compile"),
    Allowed("not beside this checkout", lambda: not shared_folder().is_dir(), "larger sample data, the paper's text"),
)


@cache
def allowed(reason: str) -> Allowed | None:
    """The entry that lets a test be skipped here for this reason, or None."""
    return next((entry for entry in ALLOWED if re.search(entry.reason, reason) and entry.where()), None)
