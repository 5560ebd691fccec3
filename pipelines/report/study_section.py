"""The report's section on the human study: the output of `sr3 study results`, with its figures embedded."""

import base64
from collections.abc import Callable
from pathlib import Path
from shlex import quote
from typing import Any

from sr3core.errors import DataError


def study_section(run: Path, study: str | None, read: Callable[[Path], dict[str, Any] | None]) -> dict[str, Any] | None:
    """A study's results, with its figures as data URLs; None if there is no study.

    Args:
        run: the run's folder, whose study/ is used if no study is named.
        study: folder that `sr3 study results` wrote to.
        read: reads a study's results.json, or notes why it cannot be read.

    Raises:
        DataError: the named study has no results.
    """
    folder = Path(study) if study is not None else run / "study"
    results = read(folder / "results.json")
    if results is None:
        if study is not None:
            raise DataError(f"study: {folder} has no results; `sr3 study results {quote(str(study))}` computes them")
        return None
    figures = {"rates": "fool-rates.svg", "times": "viewing-times.svg"}
    figures |= {f"extremes-{task['task']}": f"extremes-task-{task['task']}.png" for task in results["tasks"]}
    addresses = {name: _address(folder / "figures" / file) for name, file in figures.items()}
    return results | {"figures": addresses}


def _address(path: Path) -> str | None:
    kind = {".svg": "image/svg+xml", ".png": "image/png"}[path.suffix]
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}" if path.is_file() else None
