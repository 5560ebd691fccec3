"""A registry as a table for `sr3 models`."""

import time
from collections.abc import Iterator
from typing import Any

from pipelines.registry.registry import Registry
from pipelines.runtime.text_table import text_table

_SHORT = {"consistency": "cons."}


def describe(registry: Registry) -> Iterator[str]:
    """A heading, a line per version within 80 columns, what the numbers are, and the next command."""
    versions = registry.versions()
    if not versions:
        yield f"{registry.uri} holds no version; `sr3 retrain CONFIG.json` creates the first"
        return
    current, _ = registry.promoted()
    times = {entry.content["version"]: entry.content["time"] for entry in registry.history()}
    metrics = list(dict.fromkeys(name for version in versions for name in _values(version.metrics)))
    rows = [("VERSION", "MADE", "PROMOTED", *(_SHORT.get(name, name).upper() for name in metrics))]
    for version in versions:
        values = _values(version.metrics)
        name = f"{version.name} *" if current and current.name == version.name else version.name
        dates = _date(version.published), _date(times.get(version.name))
        rows.append((name, *dates, *(_number(values.get(metric)) for metric in metrics)))
    yield from text_table(rows, right=True)
    labels = list(dict.fromkeys(str(version.metrics.get("label", "")) for version in versions))
    yield f"Judged by {'; '.join(filter(None, labels)) or 'nothing'}."
    if current is None:
        yield f"None is promoted: `sr3 models {registry.uri} --promote {versions[-1].name}` promotes one."
    else:
        yield f"* is in use: `sr3 upscale PHOTOS --run {registry.uri} --out DIR`"


def _values(metrics: dict[str, Any]) -> dict[str, float]:
    return metrics.get("values", {})


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _date(seconds: float | None) -> str:
    return "-" if seconds is None else time.strftime("%Y-%m-%d", time.localtime(seconds))
