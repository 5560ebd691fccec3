"""The law of sources: every file is taken, rejected by name, or ignored by name with a reason; nothing else."""

import io
import os
import tarfile
import tempfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.images.file_names import IgnoreReason, is_hidden, is_image_name
from pipelines.images.rejects import DecodeError
from pipelines.prepare.sources.items import Source
from pipelines.prepare.sources.listing import open_source, read_item
from sr3core.errors import ConfigError, DataError
from tests.pipelines.prepare.source_files import picture, tar, write

FOLDERS = st.sampled_from(
    (
        *("", "a", "A", "cat", "dog", "deep/er", ".git", ".ipynb_checkpoints", "__MACOSX", "@eaDir", ".thumbnails"),
        *(".Trash-1000/files", "$RECYCLE.BIN", "lost+found", "images1024x1024/00000", "thumbnails128x128/00000"),
        *("n01440764", "train/n01443537", "celeba_hq/data64x64"),
    )
)
FILES = st.sampled_from(
    (
        *("x.png", "X.PNG", "y.jpg", "y.cls", "._x.png", "..png", "what?.png", "a b#c.webp", "é\n.png", "Thumbs.db"),
        *("k.hr.png", "k.lr.png", "k.json", "notes.txt", "no ending", "dataset.json", "old.tar.gz", "inner.7z"),
    )
)
NAMES = st.sets(st.tuples(FOLDERS, FILES).map(lambda parts: "/".join(part for part in parts if part)), max_size=12)
CONTENTS = st.sampled_from((picture(1), picture(2), b"", b"3", b"cat", b"<html>"))
TREES = NAMES.flatmap(lambda names: st.fixed_dictionaries(dict.fromkeys(sorted(names), CONTENTS)))
LAYOUTS = st.sampled_from(("auto", "folder", "ffhq", "imagenet", "celebahq", "imagefolder"))


def accounted(source: Source) -> list[str]:
    """Every name that the source answers for, each as often as it does; every item reads, or is rejected by name."""
    for item in source.items:
        try:
            assert isinstance(read_item(source.uri, item), bytes)
        except DecodeError as error:
            assert error.detail  # noqa: PT017
    return sorted([*(item.name for item in source.items), *(name for name, _ in source.ignored)])


def check(uri: Path, names: list[str], layout: str) -> None:
    try:
        source = open_source(str(uri), layout)
    except (DataError, ConfigError) as error:  # refused as a whole, by name
        assert str(uri) in str(error) or "labelled" in str(error)  # noqa: PT017
        return
    assert accounted(source) == sorted(names)
    for item in source.items:
        assert is_image_name(item.name)
        assert not is_hidden(item.name)


@given(TREES, LAYOUTS)
@settings(max_examples=60)
def test_folders_and_archives_account_for_every_file(tree: dict[str, bytes], layout: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        check(write(root / "source", tree) if tree else root, list(tree), layout)
        (root / "t.tar").write_bytes(tar(tree))
        check(root / "t.tar", list(tree), layout)
        with zipfile.ZipFile(root / "z.zip", "w") as archive:
            for name, data in tree.items():
                archive.writestr(name, data)
        check(root / "z.zip", list(tree), layout)
        several = write(root / "several", {"a.tar": tar(tree), "b.tar": tar({"b.png": picture(3)}), "notes.txt": b""})
        check(several, [*(f"a.tar/{name}" for name in tree), "b.tar/b.png", "notes.txt"], layout)


def test_pipes_links_and_system_folders_are_ignored_by_name(tmp_path: Path) -> None:
    write(tmp_path, {"x.png": picture(0), "__MACOSX/._x.png": b"", "@eaDir/x.png": picture(1), ".git/y.png": b""})
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "again").symlink_to(".")
    source = open_source(str(tmp_path))
    assert [item.name for item in source.items] == ["x.png"]
    assert dict(source.ignored) == {
        "__MACOSX/._x.png": IgnoreReason.HIDDEN,
        "@eaDir/x.png": IgnoreReason.HIDDEN,
        ".git/y.png": IgnoreReason.HIDDEN,
        "pipe.png": IgnoreReason.NOT_A_REGULAR_FILE,
        "again/": IgnoreReason.FOLDER_AGAIN,
    }
    assert "3 hidden ('.git/y.png'" in source.ignored.describe()


def test_hidden_folders_are_no_classes(tmp_path: Path) -> None:
    names = (".ipynb_checkpoints/cat-checkpoint.png", "__MACOSX/cat/x.png", "cat/x.png", "dog/x.png")
    write(tmp_path, {name: picture(i) for i, name in enumerate(names)})
    assert {i.name: i.label for i in open_source(str(tmp_path), "imagefolder").items} == {
        "cat/x.png": 0,
        "dog/x.png": 1,
    }


def test_one_stray_picture_does_not_hide_a_data_set(tmp_path: Path) -> None:
    write(tmp_path, {"preview.png": picture(0), "data.tar": tar({"a.png": picture(1)})})
    with pytest.raises(
        DataError, match=r"1 images such as 'preview.png' and 1 tar files.*--layout folder or --layout tar"
    ):
        open_source(str(tmp_path))
    assert accounted(open_source(str(tmp_path), "tar")) == ["data.tar/a.png", "preview.png"]
    assert accounted(open_source(str(tmp_path), "folder")) == ["data.tar", "preview.png"]


def test_a_zip_of_ffhqs_own_layout_is_read_by_ffhqs_rule(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "ffhq.zip", "w") as archive:
        for folder in ("images1024x1024", "thumbnails128x128", "in-the-wild-images"):
            archive.writestr(f"{folder}/00000/00000.png", picture(len(folder)))
    source = open_source(str(tmp_path / "ffhq.zip"))
    assert (source.layout, [item.name for item in source.items]) == ("zip, ffhq", ["images1024x1024/00000/00000.png"])
    assert {reason for _, reason in source.ignored} == {IgnoreReason.NOT_IN_LAYOUT}


def test_links_and_sparse_members_of_tars_are_taken_or_named(tmp_path: Path) -> None:
    data = picture(5)
    with tarfile.open(tmp_path / "t.tar", "w") as archive:
        member = tarfile.TarInfo("a/x.png")
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))
        for name, kind, target in (
            ("hard.png", tarfile.LNKTYPE, "a/x.png"),
            ("a/soft.png", tarfile.SYMTYPE, "x.png"),
            ("up.png", tarfile.SYMTYPE, "a/../hard.png"),
            ("gone.png", tarfile.SYMTYPE, "/etc/x.png"),
            ("loop.png", tarfile.SYMTYPE, "loop.png"),
            ("pipe.png", tarfile.FIFOTYPE, ""),
        ):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = kind, target
            archive.addfile(link)
        hole = tarfile.TarInfo("sparse.png")
        hole.pax_headers = {
            **{"GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.numblocks": "1"},
            **{"GNU.sparse.map": f"1000,{len(data)}", "GNU.sparse.size": str(1000 + len(data))},
        }
        hole.size = len(data)
        archive.addfile(hole, io.BytesIO(data))
    source = open_source(str(tmp_path / "t.tar"))
    found = {item.name: item for item in source.items}
    for name in ("a/x.png", "hard.png", "a/soft.png", "up.png"):
        assert read_item(source.uri, found[name]) == data
    assert read_item(source.uri, found["sparse.png"]) == bytes(1000) + data
    for name in ("gone.png", "loop.png"):
        with pytest.raises(DecodeError, match="which is no file of the tar"):
            read_item(source.uri, found[name])
    assert dict(source.ignored) == {"pipe.png": IgnoreReason.NOT_A_REGULAR_FILE}


def test_labels_that_are_no_numbers(tmp_path: Path) -> None:
    members = {
        "1.png": picture(1),
        "1.cls": b"dog\n",
        "2.png": picture(2),
        "2.cls": b"cat",
        "3.png": picture(3),
        "3.cls": b"",
    }
    (tmp_path / "t.tar").write_bytes(tar(members))
    source = open_source(str(tmp_path / "t.tar"))
    assert [(item.label, item.synset) for item in source.items] == [(1, "dog"), (0, "cat"), (None, None)]
    assert source.class_names == ("cat", "dog")
    (tmp_path / "t.tar").write_bytes(tar({**members, "2.cls": b"1.0"}))
    with pytest.raises(DataError, match=r"labelled 'dog' and .* is labelled 1: .*--label-column none"):
        open_source(str(tmp_path / "t.tar"))


def test_a_compressed_tar_says_so(tmp_path: Path) -> None:
    write(tmp_path / "named", {"x.tar": b"\x1f\x8b" + bytes(100)})
    with pytest.raises(DataError, match="compressed with gzip, whatever its name"):
        open_source(str(tmp_path / "named" / "x.tar"))
    write(tmp_path / "folder", {"x.tar.gz": b"\x1f\x8b" + bytes(100)})
    with pytest.raises(DataError, match=r"compressed tars cannot be read image by image: decompress"):
        open_source(str(tmp_path / "folder"))


@pytest.mark.parametrize("foreign", [b"[1, 2]", b"not JSON", b'{"labels": 3}', b'{"labels": [["a.png", [0, 1]]]}'])
def test_a_foreign_dataset_json_is_no_label(tmp_path: Path, foreign: bytes) -> None:
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.writestr("a.png", picture(0))
        archive.writestr("dataset.json", foreign)
    assert [item.label for item in open_source(str(tmp_path / "z.zip")).items] == [None]
