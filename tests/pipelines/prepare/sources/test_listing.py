"""Sources that are folders: what is found in them, under whatever names, and what is refused."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest

from pipelines.images.rejects import RejectReason
from pipelines.prepare.sources.items import SourceItem
from pipelines.prepare.sources.listing import open_source, read_item
from sr3core.errors import DataError, MissingError, StorageError
from tests.pipelines.prepare.source_files import bytes_of, picture, rejected, tar, write


def test_folder_tree(tmp_path: Path) -> None:
    files = {f"{folder}/{i}.png": picture(i) for folder in ("a", "a/b", "c") for i in range(2)}
    source = open_source(str(write(tmp_path, {**files, "README.txt": b"hello", "a/labels.csv": b"x"})))
    assert source.layout == "folder"
    assert bytes_of(source) == files
    assert [name for name, _ in source.ignored] == ["README.txt", "a/labels.csv"]
    assert [item.name for item in source.items] == sorted(files)


def test_names_that_break_things(tmp_path: Path) -> None:
    names = [
        *(
            "with space.png",
            "ünï/çødé 日本.png",
            "new\nline.png",
            "dots..png",
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
    source = open_source(str(write(tmp_path, {"x.png": picture(0), "y.png": picture(1)})))
    (tmp_path / "x.png").unlink()
    assert rejected(source, "x.png").reason == RejectReason.UNREADABLE


def test_a_disk_that_vanishes_is_no_property_of_its_images(tmp_path: Path) -> None:
    folder = write(tmp_path / "disk", {"deep/x.png": picture(0), "a.tar": tar({"y.png": picture(1)})})
    files, archive = open_source(str(folder), "folder"), open_source(str(folder), "tar")
    shutil.move(folder / "deep", tmp_path / "elsewhere")
    (folder / "a.tar").unlink()
    for source in (files, archive):
        with pytest.raises(StorageError, match="is its disk still mounted") as caught:
            read_item(source.uri, source.items[0])
        assert not isinstance(caught.value, MissingError)
    (folder / "deep").mkdir()  # an empty mount point
    with pytest.raises(StorageError, match="gone, with everything in its folder"):
        read_item(files.uri, files.items[0])


def test_no_source_and_no_images(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"does not exist; give a folder"):
        open_source(str(tmp_path / "none"))
    with pytest.raises(DataError, match=r"it is empty"):
        open_source(str(tmp_path))
    write(tmp_path, {"notes.txt": b"x"})
    with pytest.raises(DataError, match=r"holds no images .*1 other files: 1 not_an_image_name \('notes.txt'\)"):
        open_source(str(tmp_path))
    with pytest.raises(DataError, match=r"decompress it"):
        open_source(str(write(tmp_path, {"x.tar.gz": b"x"}) / "x.tar.gz"))
    with pytest.raises(DataError, match="cannot be read image by image"):
        open_source(str(tmp_path / "notes.txt"))


def test_items_survive_the_plan_as_json() -> None:
    item = SourceItem("n\udce9\n.png", "p", "deflated", 3, 4, 5, 6, "n01440764")
    assert SourceItem(*json.loads(json.dumps(item))) == item
    assert hashlib.sha256(item.name.encode("utf-8", "surrogateescape")).hexdigest()
