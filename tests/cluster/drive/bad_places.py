"""What stands where a command expects a place of its own, and what is wrong with a file in it."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

NOISE = bytes(range(256)) * 8


def make(folder: Path, closed_port: int) -> dict[str, str]:
    """Name -> a place that no command can use."""
    (folder / "empty").mkdir(parents=True)
    (folder / "text.txt").write_text("hello\n")
    (folder / "noise.bin").write_bytes(NOISE)
    (folder / "nothing.json").touch()
    (folder / "list.json").write_text("[1, 2]")
    (folder / "half.json").write_text('{"format": "sr3-run", "form')
    (folder / "other.json").write_text(json.dumps(OTHER))
    os.symlink(folder / "loop", folder / "loop")
    foreign = folder / "foreign"
    (foreign / "sub" / ".git").mkdir(parents=True)
    for name in ("config.json", "manifest.json", "prepare.json", "study.json", "dataset.json", "version.json"):
        (foreign / name).write_text(json.dumps(OTHER))
    (foreign / "thesis.pdf").write_bytes(b"%PDF-1.7\n" + NOISE)
    (foreign / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n" + NOISE)
    os.symlink("nowhere", foreign / "link.jpg")
    os.mkfifo(foreign / "pipe.jpg")
    (foreign / os.fsdecode(b"caf\xe9.txt")).touch()
    bucket = f"s3://bucket/x?endpoint_override=http://127.0.0.1:{closed_port}"
    local = (
        "empty",
        "text.txt",
        "noise.bin",
        "nothing.json",
        "list.json",
        "half.json",
        "other.json",
        "loop",
        "foreign",
    )
    return {
        **{name: str(folder / name) for name in local},
        "missing": str(folder / "nowhere" / "x"),
        "below a file": str(folder / "text.txt" / "x"),
        "device": "/dev/null",
        "not text": os.fsdecode(os.fsencode(folder) + b"/caf\xe9"),
        "long name": str(folder / ("x" * 300)),
        "nul": f"{folder}/a\0b",
        "no text at all": "",
        "other scheme": "ftp://host/x",
        "other host": "file://host/x",
        "silent bucket": bucket,
        "no bucket": "s3://",
    }


OTHER = {"architectures": ["UNet2DModel"], "version": "1.0", "stages": 7, "config": [], "data": None, "labels": None}
"""Another program's JSON, some of whose keys are ours."""


def _other_version(content: Any) -> Any:
    return {**content, "format_version": 99} if isinstance(content, dict) else {"format_version": 99}


def _header_alone(content: Any) -> Any:
    return {key: content[key] for key in ("format", "format_version") if key in content}


def _of_other_types(content: Any) -> Any:
    if not isinstance(content, dict):
        return 7
    return {key: value if key in ("format", "format_version") else _other_type(value) for key, value in content.items()}


def _other_type(value: Any) -> Any:
    return [value] if isinstance(value, str | int | float | bool | None) else "text"


MARKED = "a byte-order mark"
"""Not damage: as Windows' editors write JSON, and Excel tables."""
DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "half": lambda data: data[: len(data) // 2],
    "noise": lambda data: NOISE,
    "a list": lambda data: b"[1, 2]",
    "another program's": lambda data: json.dumps(OTHER).encode(),
    "nested": lambda data: b"[" * 100_000,
    "version 99": lambda data: _changed(data, _other_version),
    "a header alone": lambda data: _changed(data, _header_alone),
    "other types": lambda data: _changed(data, _of_other_types),
    MARKED: lambda data: b"\xef\xbb\xbf" + data,
}
"""What a file of ours may hold instead: bytes -> bytes."""
FOREIGN = ("noise", "another program's", "a header alone", "other types")
"""Those that are read as different things: no text, no document of ours, and two that look like one."""


def _changed(data: bytes, change: Callable[[Any], Any]) -> bytes:
    """JSON, or lines of it, changed; what is neither stays."""
    try:
        return json.dumps(change(json.loads(data))).encode()
    except ValueError:
        try:
            return b"".join(json.dumps(change(json.loads(line))).encode() + b"\n" for line in data.splitlines())
        except ValueError:
            return data


ODD_NAMES = ("[ab] *?#x=1&y", " 100%41~", "-" + "x" * 249, os.fsdecode(b"caf\xe9\ntwo lines"))
"""Names of folders that are as good as any other."""
TWICE = ("data/base-8", "models/v0002", "cascade/8-16", "reported/demo/32-64", "reported/demo/16-64-regression")
"""Folders whose files are of the same kinds as those beside them."""


def texts(folder: Path) -> list[str]:
    """The files of JSON and the tables in a folder, one of each kind, by their names relative to it."""
    found = (path for path in sorted(folder.rglob("*")) if path.suffix in (".json", ".jsonl", ".csv"))
    names = [str(path.relative_to(folder)) for path in found if "-000001." not in path.name]
    return [name for name in names if not name.startswith(TWICE)]
