"""Where an artifact comes from: configuration, package versions, git commit, seed, parents' fingerprints."""

import functools
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

from sr3core.config import fingerprint, to_dict

_PACKAGES = ("sr3-on-ray", "ray", "torch", "numpy", "pillow", "simplejpeg", "kornia-rs")


def provenance(config: Any, parents: dict[str, str] | None = None) -> dict[str, Any]:
    """Describe how an artifact was made, as JSON types; without times, so that the same work gives the same bytes.

    Args:
        config: the frozen dataclass that it was made by; its `seed` is noted if it has one.
        parents: name -> fingerprint of each artifact that went into it.
    """
    return {
        "config": to_dict(config),
        "fingerprint": fingerprint(config),
        "seed": getattr(config, "seed", None),
        "parents": dict(parents or {}),
        "git_commit": git_commit(),
        "versions": versions(),
    }


@functools.cache
def versions() -> dict[str, str]:
    """Versions of Python and of the packages that influence results; "absent" if one is not installed."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "absent"
    return found


@functools.cache
def git_commit() -> str:
    """Git commit of the code, with "-dirty" if tracked files differ from it; "unknown" outside a checkout.

    A container image built without the repository can state it in the variable SR3_GIT_COMMIT.
    """
    if stated := os.environ.get("SR3_GIT_COMMIT"):
        return stated
    try:
        answer = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return answer.stdout.strip() or "unknown" if answer.returncode == 0 else "unknown"
