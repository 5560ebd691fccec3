"""A registry as a table for `sr3 models`."""

import time
from collections.abc import Iterator
from shlex import quote
from typing import Any

from pipelines.registry.registry import Registry
from pipelines.runtime.text_table import text_table
from pipelines.storage.uris import exists, join
from sr3core.errors import DataError

_SHORT = {"consistency": "cons."}


def describe(registry: Registry) -> Iterator[str]:
    """A heading, a line per version within 80 columns, what the numbers are, and the next command.

    Raises:
        DataError: it holds no version, so that it is another place, or a registry that waits for its first.
    """
    versions = registry.versions()
    if not versions:
        raise DataError(_what_it_is(registry.uri))
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
        yield f"None is promoted: `sr3 models {quote(registry.uri)} --promote {versions[-1].name}` promotes one."
    else:
        yield f"* is in use: `sr3 upscale PHOTOS --run {quote(registry.uri)} --out DIR`"


def _what_it_is(uri: str) -> str:
    if not exists(uri):
        return f"{uri} does not exist; name the `registry` of the file that `sr3 retrain` was given"
    if exists(join(uri, "config.json")):
        return f"{uri} is a run or a model, and no registry; `sr3 status {quote(uri)}` shows what it is"
    return f"{uri} holds no version of a model; `sr3 retrain CONFIG.json` creates the first one in its `registry`"


def _values(metrics: dict[str, Any]) -> dict[str, float]:
    return metrics.get("values", {})


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _date(seconds: float | None) -> str:
    return "-" if seconds is None else time.strftime("%Y-%m-%d", time.localtime(seconds))
