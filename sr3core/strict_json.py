"""Strict JSON, although losses, norms and PSNRs can be infinite or not a number.

JSON has no such numbers. Python's `json` writes NaN and Infinity for them, which jq, JavaScript and databases refuse.
Here they are null, and "not_finite" in the document names each by its JSON Pointer (RFC 6901); `loads` restores them:

    {"step": 7, "loss": null, "not_finite": {"/loss": "nan"}}
"""

import json
import math
from collections.abc import Callable, Iterator
from typing import Any, cast

NOT_FINITE = "not_finite"
"""Key of a document that names its numbers that are not finite."""


def dumps(
    data: Any, *, indent: int | None = None, separators: tuple[str, str] | None = None, sort_keys: bool = False
) -> str:
    """Encode as JSON that every program reads; the options are those of `json.dumps`.

    Raises:
        ValueError: data is no object, so it has no place for "not_finite", and holds a number that is not finite.
    """
    try:
        return json.dumps(data, indent=indent, separators=separators, sort_keys=sort_keys, allow_nan=False)
    except ValueError:
        if not isinstance(data, dict):
            raise
    document = cast("dict[str, Any]", plain(data))
    found = {pointer: str(value) for pointer, value in _leaves(document, "") if not _is_finite(value)}
    for pointer in found:
        _set(document, pointer, None)
    document[NOT_FINITE] = found
    return json.dumps(document, indent=indent, separators=separators, sort_keys=sort_keys, allow_nan=False)


def row_encoder() -> Callable[[Any], str]:
    """`dumps` without spaces for millions of small rows, which an encoder of its own for each would slow down."""
    return json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


def loads(text: str | bytes) -> Any:
    """Decode what `dumps` wrote, or what earlier versions wrote, with NaN and Infinity in the text.

    Raises:
        ValueError: it is not JSON.
    """
    try:
        data: Any = json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    document = cast("dict[str, Any]", data) if isinstance(data, dict) else {}
    if isinstance(document.get(NOT_FINITE), dict):
        try:
            for pointer, value in document.pop(NOT_FINITE).items():
                _set(document, pointer, float(value))
        except (LookupError, TypeError) as error:  # another program's document
            raise ValueError(f"{NOT_FINITE!r} does not name numbers of the document") from error
    return cast("Any", data)


def plain(data: Any) -> Any:
    """A copy in JSON's types: tuples as lists and keys as text, so that it equals what is read back from a file."""
    return json.loads(json.dumps(data))


def not_finite(data: Any) -> list[str]:
    """Every number in nested data that is not finite, as `optimizer.learning_rate: inf is not a finite number`."""
    found = [(pointer, value) for pointer, value in _leaves(data, "") if not _is_finite(value)]
    return [f"{pointer[1:].replace('/', '.')}: {value} is not a finite number" for pointer, value in found]


def _is_finite(value: Any) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


def _leaves(data: Any, pointer: str) -> Iterator[tuple[str, Any]]:
    """JSON Pointer and value of every leaf."""
    if isinstance(data, dict):
        for key, value in cast("dict[str, Any]", data).items():
            yield from _leaves(value, f"{pointer}/{key.replace('~', '~0').replace('/', '~1')}")
    elif isinstance(data, list | tuple):
        for index, value in enumerate(cast("list[Any]", data)):
            yield from _leaves(value, f"{pointer}/{index}")
    else:
        yield pointer, data


def _set(document: dict[str, Any], pointer: str, value: float | None) -> None:
    *way, last = [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]]
    place: Any = document
    for part in way:
        place = place[int(part) if isinstance(place, list) else part]
    place[int(last) if isinstance(place, list) else last] = value
