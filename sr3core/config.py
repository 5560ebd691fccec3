"""Conversion between frozen dataclasses and JSON: to_dict, from_dict (strict), override, fingerprint."""

import dataclasses
import difflib
import hashlib
import types
import typing
from collections.abc import Iterable
from typing import Any, TypeVar, cast

from sr3core import strict_json
from sr3core.errors import ConfigError

T = TypeVar("T")

PLACEMENT: dict[str, bool] = {"placement": True}
"""Metadata of a field that controls where a run executes, not what it computes; fingerprint() ignores the field."""

ADDED: dict[str, bool] = {"added": True}
"""Metadata of a field that earlier versions lacked. fingerprint() ignores it at its default, so that configurations
keep the fingerprints that earlier versions gave them."""

PRESENCE: dict[str, bool] = {"added": True, "presence": True}
"""Metadata of an ADDED field that names a place, of which only whether it is given affects the result."""


def to_dict(config: Any) -> dict[str, Any]:
    """Convert a config dataclass to JSON types: dicts, lists, strings, numbers, booleans, None."""
    return strict_json.plain(dataclasses.asdict(config))


def from_dict(cls: type[T], data: Any) -> T:
    """Rebuild a config dataclass from JSON types, strictly.

    Raises:
        ConfigError: lists every unknown key (with the nearest known spelling), missing key, wrong type, value out of
            range and number that is not finite.
    """
    from pydantic import TypeAdapter, ValidationError  # here: a worker that only trains does not need it

    problems = list(_unknown_keys(cls, data, ""))
    if not_finite := strict_json.not_finite(data):
        raise ConfigError(f"invalid {cls.__name__}: " + "; ".join(problems + not_finite))
    try:
        # JSON mode is strict about types but accepts arrays for tuples, as config files contain them.
        config = TypeAdapter(cls).validate_json(strict_json.dumps(data), strict=True)
    except ValidationError as error:
        problems += [_describe(item) for item in error.errors()]
    else:
        if not problems:
            return config
    raise ConfigError(f"invalid {cls.__name__}: " + "; ".join(problems))


def override(config: T, **changes: Any) -> T:
    """Copy config with changes; `optimizer__learning_rate=1e-5` changes a field of a nested config.

    Raises:
        ConfigError: a name is unknown.
    """
    nested: dict[str, dict[str, Any]] = {}
    flat: dict[str, Any] = {}
    for name, value in changes.items():
        head, _, rest = name.partition("__")
        if head not in _field_types(type(config)):
            raise ConfigError(_unknown(head, "", _field_types(type(config))))
        if rest:
            nested.setdefault(head, {})[rest] = value
        else:
            flat[head] = value
    for head, inner in nested.items():
        flat[head] = override(getattr(config, head), **inner)
    return dataclasses.replace(config, **flat)  # type: ignore[type-var]


def fingerprint(config: Any) -> str:
    """Hash the fields that affect the result: 16 hexadecimal digits of SHA-256 over canonical JSON."""
    return fingerprint_of(scientific(config))


def fingerprint_of(data: Any) -> str:
    """Hash JSON data: the first 16 hexadecimal digits of SHA-256 over its canonical form."""
    canonical = strict_json.dumps(data, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def scientific(config: Any) -> Any:
    """The part of a config that affects the result, as JSON types: no PLACEMENT fields, no ADDED fields at defaults."""
    if dataclasses.is_dataclass(config):
        values = {f: getattr(config, f.name) for f in dataclasses.fields(config) if not f.metadata.get("placement")}
        kept = {f: value for f, value in values.items() if not (f.metadata.get("added") and value == _default(f))}
        return {f.name: scientific(bool(v) if f.metadata.get("presence") else v) for f, v in kept.items()}
    if isinstance(config, list | tuple):
        return [scientific(item) for item in cast("Iterable[Any]", config)]
    if isinstance(config, dict):
        return {key: scientific(value) for key, value in cast("dict[str, Any]", config).items()}
    return config


def _default(field: dataclasses.Field[Any]) -> Any:
    """A field's default value, from its factory if it has one; MISSING, which equals nothing else, if it has none."""
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """List every leaf in which two JSON values differ, as `optimizer.learning_rate: 0.0001 -> 0.0003`."""
    if isinstance(old, dict) and isinstance(new, dict):
        before, after = cast("dict[str, Any]", old), cast("dict[str, Any]", new)
        lines: list[str] = []
        for key in sorted(before.keys() | after.keys()):
            lines += differences(before.get(key), after.get(key), f"{path}.{key}" if path else key)
        return lines
    return [] if old == new else [f"{path}: {_brief(old)} -> {_brief(new)}"]


def _brief(value: Any) -> str:
    """Abbreviate a nested config that only one side has; in full it would make the message unreadable."""
    return "{...}" if isinstance(value, dict) else repr(value)


def did_you_mean(word: str, known: typing.Iterable[str]) -> str:
    """Suggest the nearest known spelling, or list all known names."""
    known = sorted(known)
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"did you mean {near[0]!r}?" if near else f"known are: {', '.join(known)}"


def _unknown_keys(cls: Any, data: Any, path: str) -> typing.Iterator[str]:
    if not isinstance(data, dict):
        return
    known = _field_types(cls)
    for key, value in cast("dict[str, Any]", data).items():
        if key not in known:
            yield _unknown(key, path, known)
            continue
        where = f"{path}{key}"
        inner, many = _dataclass_inside(known[key])
        if inner is not None and many and isinstance(value, list):
            for index, item in enumerate(cast("list[Any]", value)):
                yield from _unknown_keys(inner, item, f"{where}[{index}].")
        elif inner is not None:
            yield from _unknown_keys(inner, value, f"{where}.")


def _unknown(key: str, path: str, known: typing.Iterable[str]) -> str:
    return f"unknown key {path + key!r}, {did_you_mean(key, known)}"


def _field_types(cls: Any) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def _dataclass_inside(annotation: Any) -> tuple[Any, bool]:
    """The dataclass in an annotation (`C`, `C | None`, `tuple[C, ...]`), and whether the annotation is a sequence."""
    if dataclasses.is_dataclass(annotation):
        return annotation, False
    origin = typing.get_origin(annotation)
    for argument in typing.get_args(annotation) if origin in (tuple, list, typing.Union, types.UnionType) else ():
        if dataclasses.is_dataclass(argument):
            return argument, origin in (tuple, list)
    return None, False


def _describe(item: Any) -> str:
    where = ".".join(str(part) for part in item["loc"]) or "value"
    # A whole config would make the message unreadable.
    got = "" if isinstance(item["input"], dict) else f" (got {item['input']!r})"
    return f"{where}: {item['msg'].removeprefix('Value error, ')}{got}"
