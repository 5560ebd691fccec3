"""The JSON documents that a report reads, and what it takes out of each; what does not fit is omitted, with a note."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.report.pictures import note
from sr3core import strict_json

Shape = Any
"""A type, a list of one shape, or a dict of key -> shape: a key with `?` may be absent or null, `*` is any other."""

NUMBER = int | float
_METHOD: Shape = {"name": str, "*": object}
_RESULTS: Shape = {
    "num_images": int,
    "methods": [_METHOD],
    "provenance": dict,
    "variants?": {"*": str},
    "split?": str,
    "schedules?": {"*": {"num_steps": int}},
    "references?": dict,
}
_TRIAL: Shape = {"name": str, "status": str, "objective": NUMBER | None}


@dataclass(frozen=True, kw_only=True)
class Document:
    """One kind of document."""

    format: tuple[str, int] | None
    """Its format and version; None if it states none."""
    shape: Shape


EVALUATION = Document(
    format=("sr3-evaluation", 1),
    shape={
        **_RESULTS,
        "keys": [str],
        "methods": [{**_METHOD, "distance": {"mean": NUMBER}}],
        "distance": {"label": str, "network": str, "is_fid": bool},
        "differences?": {"*": {"*": object}},
    },
)
TABLE_3 = Document(format=("sr3-evaluation", 1), shape={**_RESULTS, "references": dict})
TABLE_4 = Document(
    format=("sr3-evaluation", 1),
    shape={
        **_RESULTS,
        "methods": [{**_METHOD, "distance": {"mean": NUMBER}}],
        "distance": {"label": str, "network": str, "is_fid": bool},
        "num_references": int,
        "provenance": {"outputs": [str]},
    },
)
_GAIN = {"name": str, "default": str, "value": NUMBER, "low": NUMBER, "high": NUMBER}
ABLATION = Document(format=("sr3-ablation", 1), shape={"num_images": int, "arms": [{"name": str, "stages": [str]}]})
SEARCH = Document(
    format=("sr3-search", 3),  # written by tune, which pipelines may not import
    shape={
        **{"stage": str, "num_steps": int, "label": str, "is_fid": bool, "split": str, "num_images": int},
        **{"best": str, "default": str, "trials": [{**_TRIAL, "gammas": [NUMBER]}], "config": dict, "provenance": dict},
        "confirmation?": {"split": str, "num_images": int, "trials": [_TRIAL], "gains": [_GAIN]},
        **{"front": [str], "published": [str]},
    },
)
STUDY = Document(format=("sr3-study-results", 1), shape={"tasks": [{"task": int}]})
SAMPLES = Document(format=None, shape={"num_images?": int, "seconds?": NUMBER})
TIMINGS = Document(format=None, shape={"parts": [{"name": str, "seconds": NUMBER}]})


def read_document(path: Path, kind: Document, notes: list[str]) -> dict[str, Any] | None:
    """A document's content, or None if it is absent, damaged or in another format; the latter two get a note."""
    if not path.is_file():
        return None
    try:
        content = strict_json.loads(path.read_bytes())
    except ValueError as error:
        note(f"{path.name} is damaged and omitted: {error}", notes)
        return None
    content = content if isinstance(content, dict) else {}
    found = (content.get("format"), content.get("format_version"))
    if kind.format is not None and found != kind.format:
        note(f"{path.name} is omitted: it has format {found}, this program reads {kind.format}", notes)
        return None
    if (wrong := misfit(content, kind.shape)) is not None:
        note(f"{path.name} is damaged and omitted: {wrong} is missing, or of another type", notes)
        return None
    return content


def misfit(content: Any, shape: Shape, where: str = "") -> str | None:
    """Where content is not of a shape, as a dotted name; None if all of it is."""
    if isinstance(shape, list):
        if not isinstance(content, list):
            return where
        return _first(misfit(item, shape[0], f"{where}[{index}]") for index, item in enumerate(content))
    if not isinstance(shape, Mapping):
        return None if isinstance(content, shape) else where
    if not isinstance(content, dict):
        return where or "everything"
    return _first(_misfits(content, shape, where))


def _misfits(content: dict[str, Any], shape: Mapping[str, Shape], where: str) -> Any:
    for key, wanted in shape.items():
        name = key.removesuffix("?")
        if key == "*":
            others = content.keys() - {other.removesuffix("?") for other in shape}
            yield from (misfit(content[other], wanted, f"{where}.{other}".lstrip(".")) for other in sorted(others))
        elif name == key or content.get(name) is not None:
            place = f"{where}.{name}".lstrip(".")
            yield misfit(content[name], wanted, place) if name in content else place


def _first(found: Any) -> str | None:
    return next((where for where in found if where is not None), None)
