"""Whether Python finds this program's packages, or files of the same names: `tune.py`, a folder `pipelines/`.

It imports nothing else of this program, so that the answer is a line and not an ImportError.
"""

import importlib.machinery
import os
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("sr3core", "pipelines", "tune", "cluster")


def in_the_way(path: Sequence[str]) -> str | None:
    """What Python finds in these folders instead of a package of this program, in words; None if there is nothing."""
    for name in PACKAGES:
        spec = importlib.machinery.PathFinder.find_spec(name, [folder or os.getcwd() for folder in path])
        if spec is None:
            continue
        (found, *_) = [spec.origin] if spec.origin else spec.submodule_search_locations or [""]
        if Path(found).resolve() not in (ROOT / name, ROOT / name / "__init__.py"):
            return f"{found} is in the way of this program's own package {name!r}, since Python finds it first"
    return None
