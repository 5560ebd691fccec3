"""The record of an upscaled photo: OUT/.sr3/NAME.json says from which bytes and settings OUT/NAME was made.

It is written twice: as "writing" before the photo is moved into place, and as "done" afterwards. So a file without a
record is not ours, and one whose record is not "done" is made again.
"""

from typing import Any

from pipelines.runtime.provenance import git_commit, versions
from pipelines.storage.local_files import short_name
from pipelines.storage.uris import exists, is_file, join, read_bytes, size_of, write_atomic
from sr3core import strict_json
from sr3core.config import differences

RECORDS = ".sr3"
"""Folder of the records, below the outputs'."""

FORMAT_VERSION = 1
NEW = "does not exist yet"
"""What sets an output apart that was never made."""


def record_of(source: dict[str, str], settings: dict[str, Any]) -> dict[str, Any]:
    """What determines an output, as JSON types.

    Args:
        source: name and sha256 of the photo's bytes.
        settings: checkpoints, schedules, seed, tiles, format.
    """
    return {"format": "sr3-upscaled", "format_version": FORMAT_VERSION, "source": source, "settings": settings}


def changes_since(out: str, name: str, record: dict[str, Any]) -> list[str] | None:
    """How `record` differs from what OUT/NAME was made from; empty if OUT/NAME is up to date.

    Returns:
        a line per difference; None if there is a file without a record of ours.
    """
    path = join(out, name)
    record_path = _record_path(out, name)
    if not exists(record_path):
        return None if exists(path) else [NEW]
    try:
        old = strict_json.loads(read_bytes(record_path))
        changed = differences({key: old[key] for key in record}, record)
        done = old["status"] == "done" and is_file(path) and size_of(path) == old["output"]["bytes"]
    except (ValueError, KeyError, TypeError):
        return ["its record is damaged"]
    return changed or ([] if done else ["not finished, or changed since"])


def save_record(out: str, name: str, record: dict[str, Any], status: str, output: dict[str, Any]) -> None:
    """Write the record of OUT/NAME: status "writing" or "done", and the output's size."""
    content = {**record, "status": status, "output": output, "versions": versions(), "git_commit": git_commit()}
    write_atomic(_record_path(out, name), strict_json.dumps(content, indent=1).encode())


def _record_path(out: str, name: str) -> str:
    folder, slash, own = name.rpartition("/")
    return join(out, RECORDS, f"{folder}{slash}{short_name(own, len('.json'))}.json")
