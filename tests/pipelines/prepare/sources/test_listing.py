"""Sources that are folders: what is found in them, under whatever names, and what is refused."""

import hashlib
import json
import os
from pathlib import Path

import pytest

from pipelines.images.rejects import RejectReason
from pipelines.prepare.sources.items import SourceItem
from pipelines.prepare.sources.listing import open_source
from sr3core.errors import DataError
from tests.pipelines.prepare.source_files import bytes_of, picture, rejected, write


def test_folder_tree(tmp_path: Path) -> None:
    files = {f"{folder}/{i}.png": picture(i) for folder in ("a", "a/b", "c") for i in range(2)}
    source = open_source(str(write(tmp_path, {**files, "README.txt": b"hello", "a/labels.csv": b"x"})))
    assert source.layout == "folder"
    assert bytes_of(source) == files
    assert source.ignored == ["README.txt", "a/labels.csv"]
    assert [item.name for item in source.items] == sorted(files)


def test_names_that_break_things(tmp_path: Path) -> None:
    names = [
        *(
            "with space.png",
            "ünï/çødé 日本.png",
            "new\nline.png",
            "..dots..png",
            "quote\"'.png",
            "-dash.png",
            "%41.png",
        ),
        *("trailing .PNG", "a\tb.JpEg", "emoji🙂.webp", "back\\slash.png", "*.png", "$HOME.png", "{0..1}.png"),
    ]
    files = {name: picture(i) for i, name in enumerate(names)}
    write(tmp_path, files)
    latin = os.fsencode(tmp_path) + b"/caf\xe9.png"  # no valid UTF-8
    with open(latin, "wb") as file:
        file.write(picture(99))
    found = bytes_of(open_source(str(tmp_path)))
    assert found == {**files, os.fsdecode(b"caf\xe9.png"): picture(99)}


def test_links_are_followed_once_and_broken_ones_named(tmp_path: Path) -> None:
    write(tmp_path / "real", {"x.png": picture(0)})
    source_folder = write(tmp_path / "source", {"y.png": picture(1)})
    (source_folder / "link").symlink_to(tmp_path / "real")
    (source_folder / "loop").symlink_to(source_folder)
    (source_folder / "gone.png").symlink_to(tmp_path / "nowhere.png")
    source = open_source(str(source_folder))
    assert [item.name for item in source.items] == ["gone.png", "link/x.png", "y.png"]
    assert rejected(source, "gone.png").reason == RejectReason.UNREADABLE


def test_a_file_that_vanishes_is_named(tmp_path: Path) -> None:
    source = open_source(str(write(tmp_path, {"x.png": picture(0)})))
    (tmp_path / "x.png").unlink()
    assert rejected(source, "x.png").reason == RejectReason.UNREADABLE


def test_no_source_and_no_images(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"does not exist; give a folder"):
        open_source(str(tmp_path / "none"))
    with pytest.raises(DataError, match=r"it is empty"):
        open_source(str(tmp_path))
    write(tmp_path, {"notes.txt": b"x"})
    with pytest.raises(DataError, match=r"holds no images .*1 other files such as 'notes.txt'"):
        open_source(str(tmp_path))
    with pytest.raises(DataError, match=r"decompress it"):
        open_source(str(write(tmp_path, {"x.tar.gz": b"x"}) / "x.tar.gz"))
    with pytest.raises(DataError, match="cannot be read image by image"):
        open_source(str(tmp_path / "notes.txt"))


def test_items_survive_the_plan_as_json() -> None:
    item = SourceItem("n\udce9\n.png", "p", "deflated", 3, 4, 5, 6, "n01440764")
    assert SourceItem(*json.loads(json.dumps(item))) == item
    assert hashlib.sha256(item.name.encode("utf-8", "surrogateescape")).hexdigest()
