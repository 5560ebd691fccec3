"""Verification finds every kind of damage, names the file, and finds nothing in whole shards."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.prepare.finished.verify import describe, verify
from pipelines.prepare.preparation import PrepareSummary
from tests.pipelines.prepare.preparations import (
    copy_of,
)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-700])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[700] ^= 1
    path.write_bytes(data)


def move_offset(path: Path) -> None:
    index = path.with_name(path.name.replace(".tar", ".index.json"))
    data = json.loads(index.read_text())
    data["samples"][1]["members"]["hr.png"][0] += 512
    index.write_text(json.dumps(data))


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated shard": (cut, "truncated"),
    "changed byte": (flip, "SHA-256"),
    "missing shard": (Path.unlink, "No such file"),
    "missing index": (
        lambda path: path.with_name(path.name.replace(".tar", ".index.json")).unlink(),
        "index.json: No such",
    ),
    "wrong offset": (move_offset, "no tar header for "),
    "truncated index": (
        lambda path: cut(path.with_name(path.name.replace(".tar", ".index.json"))),
        "index.json is damaged",
    ),
    "truncated manifest": (lambda path: cut(path.with_name("manifest.json")), "manifest.json is damaged"),
    "missing manifest": (lambda path: path.with_name("manifest.json").unlink(), "holds no manifest.json"),
    "a shard too many": (lambda path: path.with_name("train-000099.tar").write_bytes(b""), "not in manifest"),
    "a leftover": (lambda path: path.with_name(".00-train.tmp").write_bytes(b""), "killed"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_verify_finds(prepared: tuple[Path, PrepareSummary], tmp_path: Path, damage: str) -> None:
    assert verify(str(prepared[0])) == []
    assert "all shards are present and intact" in describe(str(prepared[0]), [])
    out = copy_of(prepared[0], tmp_path / "copy")
    break_it, word = DAMAGES[damage]
    break_it(out / "16-32" / "train-000001.tar")
    problems = verify(str(out))
    assert problems
    assert all(str(out / "16-32") in problem.path for problem in problems)
    assert any(word in problem.problem for problem in problems), problems
    assert len(describe(str(out), problems).splitlines()) == len(problems)
    if damage != "missing manifest":  # without it, a stage's folder on its own says nothing
        assert verify(str(out / "16-32"))
    assert verify(str(out / "8-16")) == []
