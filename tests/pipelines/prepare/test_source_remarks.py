"""What a source ignores is named in a file, by name, which goes when nothing is ignored any more."""

import json
from pathlib import Path

from pipelines.prepare.preparation import begin
from pipelines.settings.prepare import PrepareConfig
from tests.pipelines.prepare.preparations import picture
from tests.pipelines.prepare.source_files import write


def test_all_that_is_ignored_is_named_and_the_remark_says_where(tmp_path: Path) -> None:
    others = {"b/notes.txt": b"", ".hidden/x.png": b"", "a.txt": b""}
    source = write(tmp_path / "source", {"0.png": picture(0), "1.png": picture(1), **others})
    config = PrepareConfig(source=str(source), out=str(tmp_path / "out"), stages=("8-16",))
    path = tmp_path / "out" / "ignored.jsonl"
    (remark,) = begin(config).remarks
    assert remark.startswith("ignored: 1 hidden ('.hidden/x.png'); 2 not_an_image_name ('a.txt', 'b/notes.txt')")
    assert remark.endswith(f"{path} names them all")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(row["path"], row["reason"]) for row in rows] == [
        (".hidden/x.png", "hidden"),
        ("a.txt", "not_an_image_name"),
        ("b/notes.txt", "not_an_image_name"),
    ]
    for name in others:
        (source / name).unlink()
    assert begin(config).remarks == ()
    assert not path.exists()
