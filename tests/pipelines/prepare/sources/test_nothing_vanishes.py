"""The law of sources: every file is taken, rejected by name, or ignored by name with a reason; nothing else."""

import io
import itertools
import os
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.images.file_names import IgnoreReason, is_hidden, is_image_name
from pipelines.images.rejects import DecodeError
from pipelines.prepare.sources.items import Source
from pipelines.prepare.sources.listing import open_source, read_item
from sr3core.errors import ConfigError, DataError
from tests.pipelines.prepare.source_files import picture, tar, write
from tests.pipelines.prepare.source_trees import (
    BYTES,
    ROWS,
    Row,
    Tree,
    as_folder,
    as_parquet,
    as_tar,
    as_zip,
    plain,
    row_names,
    trees,
)
from tests.s3_server import S3Server

LAYOUTS = st.sampled_from(("auto", "folder", "ffhq", "imagenet", "celebahq", "imagefolder"))
KINDS = st.sampled_from(("auto", "folder", "tar", "zip", "parquet"))


def accounted(source: Source) -> list[str]:
    """Every name that the source answers for, each as often as it does; every item reads, or is rejected by name."""
    for item in source.items:
        try:
            assert isinstance(read_item(source.uri, item), bytes)
        except DecodeError as error:
            assert error.detail  # noqa: PT017
    return sorted([*(item.name for item in source.items), *(name for name, _ in source.ignored)])


def check(uri: Path | str, names: list[str], layout: str, will_align: bool = False) -> None:
    try:
        source = open_source(str(uri), layout, will_align=will_align)
    except (DataError, ConfigError) as error:  # refused as a whole, by name
        assert str(uri) in str(error) or "labelled" in str(error) or "ground" in str(error)  # noqa: PT017
        return
    assert accounted(source) == sorted(names)
    for item in source.items:
        assert is_image_name(item.name) or item.how == "row"
        assert not is_hidden(item.name)


@given(trees(), LAYOUTS, st.booleans())
@settings(max_examples=60)
def test_folders_and_archives_account_for_every_file(tree: Tree, layout: str, will_align: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        check(root / "source", as_folder(root / "source", tree), layout, will_align)
        (root / "t.tar").write_bytes(as_tar(tree))
        check(root / "t.tar", list(tree), layout, will_align)
        (root / "z.zip").write_bytes(as_zip(tree))
        check(root / "z.zip", list(plain(tree)), layout, will_align)
        several = write(
            root / "several", {"a.tar": as_tar(tree), "b.tar": tar({"b.png": picture(3)}), "notes.txt": b""}
        )
        check(several, [*(f"a.tar/{name}" for name in tree), "b.tar/b.png", "notes.txt"], layout, will_align)


@given(ROWS, trees(), KINDS)
@settings(max_examples=40)
def test_tables_and_mixtures_account_for_every_row_and_file(rows: list[Row], tree: Tree, layout: str) -> None:
    """Whichever kind of a mixture is read, the others are ignored by their names."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "p.parquet").write_bytes(as_parquet(rows))
        check(root / "p.parquet", row_names("", rows), "auto")
        mixed = root / "mixed"
        names = as_folder(mixed, tree)
        archives = {"m.tar": as_tar(tree), "m.zip": as_zip(tree), "m.parquet": as_parquet(rows)}
        write(mixed, archives)
        inside = {
            "tar": [f"m.tar/{name}" for name in tree],
            "zip": [f"m.zip/{name}" for name in plain(tree)],
            "parquet": row_names("m.parquet", rows),
        }
        opened = {f"m.{layout}"} if layout in inside else set()
        check(mixed, [*names, *(set(archives) - opened), *inside.get(layout, ())], layout)


@pytest.fixture(scope="module")
def bucket(s3_server: S3Server) -> Callable[[Mapping[str, bytes]], str]:
    """Puts files under a new prefix of a bucket, and returns its URI."""
    s3_server.create_bucket("trees")
    client, prefixes = s3_server.client(), itertools.count()

    def put(files: Mapping[str, bytes]) -> str:
        prefix = f"{next(prefixes)}"
        for name, data in files.items():
            client.put_object(Bucket="trees", Key=f"{prefix}/{name}", Body=data)
        return f"s3://trees/{prefix}?endpoint_override={s3_server.endpoint}"

    return put


@given(trees(BYTES), LAYOUTS)
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_buckets_account_for_every_object(
    bucket: Callable[[Mapping[str, bytes]], str], tree: Mapping[str, bytes], layout: str
) -> None:
    check(bucket(tree), list(tree), layout)
    archives = {"t.tar": as_tar(tree), "notes.txt": b""}
    check(bucket(archives), [*(f"t.tar/{name}" for name in tree), "notes.txt"], layout)


def test_what_a_command_writes_into_its_own_source_is_ignored(
    bucket: Callable[[Mapping[str, bytes]], str], tmp_path: Path
) -> None:
    files = {"x.png": picture(1), "shards/y.png": picture(2), "shards-of-others/z.png": picture(3)}
    uri = bucket(files)
    places = {str(write(tmp_path, files)): str(tmp_path / "shards"), uri: uri.replace("?", "/shards?")}
    for source, out in places.items():
        opened = open_source(source, outputs=[out])
        assert [item.name for item in opened.items] == ["shards-of-others/z.png", "x.png"]
        assert dict(opened.ignored) == {"shards/y.png": IgnoreReason.OWN_OUTPUT}


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
