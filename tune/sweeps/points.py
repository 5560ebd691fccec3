"""The points of a sweep: every combination of the values that settings of a training take."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from pipelines.settings.train import TrainConfig
from sr3core import strict_json
from sr3core.config import fingerprint, from_dict, to_dict
from sr3core.errors import ConfigError

OTHER_LOSSES = (
    *("model.objective.", "model.noise_schedule.", "model.kind", "model.low_size", "model.high_size"),
    *("num_validation_images", "seed"),
)
"""Settings that change what the held-out loss measures, or with which noise: it would compare what does not compare."""
NOT_SETTINGS = ("name", "num_steps", "initial_weights", "validation_every", "checkpoint_every")
"""What the sweep sets itself, or what decides nothing."""


@dataclass(frozen=True, slots=True)
class Point:
    """One training of a sweep."""

    name: str
    """Of its folder."""
    changes: Mapping[str, Any]
    """Path of each varied setting -> its value, as JSON types: `optimizer.learning_rate`."""
    config: TrainConfig


def parse_axes(texts: Sequence[str]) -> dict[str, list[Any]]:
    """Read `optimizer.learning-rate=1e-4,3e-4`: path of a setting -> its values.

    Values are JSON, and text where they are none; a list is written in brackets, as in `optimizer.betas=[0.9,0.99]`.

    Raises:
        ConfigError: no such form, a setting named twice, or a value given twice.
    """
    axes: dict[str, list[Any]] = {}
    for text in texts:
        path, sign, values = text.partition("=")
        path = path.strip().replace("-", "_")
        found = [_value(value) for value in _split(values)]
        if not sign or not path or len(found) < 2:
            raise ConfigError(f"vary: {text!r} is not SETTING=VALUE,VALUE,…; write optimizer.learning-rate=1e-4,3e-4")
        if path in axes:
            raise ConfigError(f"vary: {path} is named twice; write all of its values behind one --vary")
        if len({strict_json.dumps(value) for value in found}) < len(found):
            raise ConfigError(f"vary: {text!r} has a value twice")
        axes[path] = found
    if not axes:
        raise ConfigError("vary: nothing to vary; add --vary optimizer.learning-rate=1e-4,3e-4, or use `sr3 train`")
    return axes


def _split(values: str) -> list[str]:
    """At the commas outside of brackets; an empty text has no values."""
    return [part.strip() for part in re.findall(r"(?:\[[^\]]*\]|[^,\[])+", values)]


def _value(text: str) -> Any:
    if text in ("True", "False", "None"):
        return {"True": True, "False": False, "None": None}[text]
    try:
        return strict_json.loads(text)
    except ValueError:
        return text


def points_of(base: TrainConfig, axes: Mapping[str, Sequence[Any]]) -> list[Point]:
    """Every combination of the axes' values, in the order in which they were given.

    Raises:
        ConfigError: a setting does not exist, does not take such a value, decides nothing, or would make losses
            incomparable.
    """
    for path in axes:
        _refuse(path)
    points = []
    for number, values in enumerate(product(*axes.values())):
        changes = dict(zip(axes, values, strict=True))
        try:
            config = from_dict(TrainConfig, _changed(to_dict(base), changes))
        except ConfigError as error:
            raise ConfigError(f"vary: {_in_words(changes)}: {error}") from error
        points.append(Point(f"{number:02d}-{_slug(changes)}", changes, config))
    seen: dict[str, Point] = {}
    for point in points:
        same = seen.setdefault(fingerprint(point.config), point)
        if same is not point:
            raise ConfigError(
                f"vary: {_in_words(same.changes)} and {_in_words(point.changes)} are the same training: where it runs"
                " decides nothing"
            )
    return points


def _refuse(path: str) -> None:
    if path in NOT_SETTINGS:
        raise ConfigError(f"vary: {path} cannot be varied; set it for all trainings by --{path.replace('_', '-')}")
    if path.startswith(OTHER_LOSSES):
        raise ConfigError(
            f"vary: with another {path} the held-out loss measures something else, so losses do not compare; train"
            " apart, and compare by `sr3 evaluate` or `sr3 ablate`"
        )


def _changed(content: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    for path, value in changes.items():
        *above, last = path.split(".")
        inner = content
        for name in above:
            if not isinstance(inner.get(name), dict):
                inner[name] = {}
            inner = inner[name]
        inner[last] = value
    return content


def _in_words(changes: Mapping[str, Any]) -> str:
    return ", ".join(f"{path}={strict_json.dumps(value)}" for path, value in changes.items())


def _slug(changes: Mapping[str, Any]) -> str:
    words = "-".join(f"{path.rpartition('.')[2]}-{strict_json.dumps(value)}" for path, value in changes.items())
    return re.sub(r"[^\w.-]+", "_", words).strip("_")[:80]
