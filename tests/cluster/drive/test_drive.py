"""No command ends with a traceback, a hang or a write elsewhere, whatever it finds in the places that it is given."""

import json
import re
import stat
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from cluster.catalog import COMMANDS
from cluster.exits import DONE, FAILURE, USAGE_ERROR
from tests.cluster.drive.commands import CALLS, calls, place_options
from tests.cluster.drive.places import WatchedFolder
from tests.commands import ROOT, clean_environment, run_sr3
from tests.once import once
from tests.processes import can_mount

pytestmark = pytest.mark.slow

PARTS = ("rights", "bad_options", "damaged_files", "odd_names", "spellings", "full", "read_only", "rays")
"""What the calls are driven through, by the names of Drive's methods."""
EVERYWHERE = ("nothing", "named", "spelled", "full", "read-only")
"""What every command has cells of."""
REMEDY = re.compile(
    r"`[^`]+`|(?:[;,.] |\bor |\band )(?:add|bring|choose|close|correct|create|delete|free|give|install|leave|mount|name"
    r"|omit|prepare|rename|repeat|restore|run|set|start|take|train|use|wait|write)\b"
    r"|\b(?:known (?:are|is)|must be|must hold|such as|is the head up|did you mean)\b"
)
"""What tells a user what to do: a command, an imperative, or what would be right."""
TAKEN = {
    ("study new", "--out"): {"missing", "not text"},
    ("export", "--out"): {"empty", "missing", "not text"},
}
"""Command and option -> the places that are as good as any: a new folder."""


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What every call of the drive ended with."""
    if not can_mount():
        pytest.skip("needs a private mount: full and read-only disks")

    def drive(folder: Path) -> None:
        command = [sys.executable, "-m", "tests.cluster.drive.drive", folder / "places", folder / "cells.jsonl", *PARTS]
        (folder / "places").mkdir()
        done = subprocess.run(
            ["unshare", "-Urm", *command], cwd=ROOT, env=clean_environment(), capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]

    written = once(tmp_path_factory, "drive", drive) / "cells.jsonl"
    return [json.loads(line) for line in written.read_text().splitlines()]


def _found(cells: Sequence[dict[str, Any]], *keys: str) -> str:
    """Cells in words, for a failure's message."""
    lines = (f"{cell['command']}, {cell['where']}: " + "; ".join(repr(cell[key]) for key in keys) for cell in cells)
    return "\n".join(line[-700:] for line in lines)


def test_every_command_is_driven_through_every_part(cells):
    for name, command in COMMANDS.items():
        wheres = {cell["where"] for cell in cells if cell["command"] == name}
        wanted = {*EVERYWHERE, *(["Ray at"] if command.takes_address else [])}
        assert not {part for part in wanted if not any(part in where for where in wheres)}, name
        for option in place_options(name):
            assert sum(where.startswith(f"{option.name}: ") for where in wheres) >= 15, (name, option.name)


def test_a_command_without_calls_fails_the_drive(monkeypatch):
    monkeypatch.delitem(CALLS, "verify")
    with pytest.raises(KeyError, match="verify"):
        list(calls())


def test_no_call_ends_in_a_traceback_or_never(cells):
    broken = [cell for cell in cells if cell["outcome"] in ("fault", "hang")]
    assert not broken, _found(broken, "said")


def test_exit_statuses_keep_their_contract(cells):
    wanted = {"done": {DONE}, "refused": {FAILURE, USAGE_ERROR}, "ray": {FAILURE}}
    wrong = [cell for cell in cells if cell["status"] not in wanted.get(cell["outcome"], ())]
    assert not wrong, _found(wrong, "outcome", "status")


def test_a_place_that_cannot_be_used_is_never_taken(cells):
    taken = [
        cell
        for cell in cells
        if cell["outcome"] == "done" and re.match(r"--|[A-Z]+: ", cell["where"]) and not _is_good(cell)
    ]
    assert not taken, _found(taken, "said")


def _is_good(cell: dict[str, Any]) -> bool:
    option, _, name = cell["where"].partition(": ")
    return name in TAKEN.get((cell["command"], option), ())


def test_every_refusal_says_state_and_remedy(cells):
    refused = [cell for cell in cells if cell["outcome"] == "refused"]
    silent = [cell for cell in refused if not REMEDY.search(_message(cell))]
    assert not silent, _found(silent, "said")
    without_place = [cell for cell in refused if cell["place"] and not _names(cell)]
    assert not without_place, _found(without_place, "said")


def _message(cell: dict[str, Any]) -> str:
    """What a refusal says, without the frame of the options' parser and the notice before it."""
    lines = re.sub(r"[─╭╮╰╯│]", "", cell["said"]).splitlines()
    return " ".join(" ".join(line for line in lines if not line.endswith(": loading …")).split())


def _names(cell: dict[str, Any]) -> bool:
    """Whether a refusal names what is wrong: the place, a file in it, its last folder or the option."""
    message = _message(cell)
    option = cell["where"].partition(": ")[0].removeprefix("--").rpartition(".")[2]
    place = cell["place"].encode(errors="backslashreplace").decode()
    parents = [place, *(str(parent) for parent in list(Path(place).parents)[:3])]
    return any(part in message for part in (*parents, repr(cell["place"]), option, option.replace("-", "_")))


def test_nothing_is_written_outside_the_places_that_are_named_for_it(cells):
    strays = [cell for cell in cells if cell["stray"]]
    assert not strays, _found(strays, "stray")


def test_devices_stay_devices(cells):
    for device in ("/dev/null", "/dev/full"):
        assert stat.S_ISCHR(Path(device).stat().st_mode)


def test_what_a_call_writes_is_seen_and_undone(tmp_path):
    place = tmp_path / "work"
    place.mkdir()
    for name in ("changed", "deleted"):
        (place / name).write_text("before")
    watched = WatchedFolder(tmp_path)
    (place / "changed").write_text("after that")
    (place / "deleted").unlink()
    (place / "new").mkdir()
    assert watched.changes() == [str(place / name) for name in ("changed", "deleted", "new")]
    watched.restore()
    assert watched.changes() == []
    assert (place / "changed").read_text() == (place / "deleted").read_text() == "before"


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["status", "{bad}/text.txt"], FAILURE),
        (["verify", "{bad}/nowhere"], FAILURE),
        (["train", "--config", "{bad}/text.txt", "--data", "x", "--out", "y"], USAGE_ERROR),
        (["upscale", "{bad}/nowhere.jpg", "--out", "{bad}/text.txt/x"], USAGE_ERROR),
        (["models", "{bad}/text.txt"], FAILURE),
    ],
)
def test_a_process_ends_as_the_drive_says(words, status, tmp_path):
    (tmp_path / "text.txt").write_text("hello\n")
    done = run_sr3(*(word.format(bad=tmp_path) for word in words))
    assert done.returncode == status, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert REMEDY.search(done.stderr)
