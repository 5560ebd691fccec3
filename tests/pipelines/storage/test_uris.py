"""URIs, and writes to a disk that are whole or nothing."""

import os
from pathlib import Path

import pytest

from pipelines.storage import uris
from pipelines.storage.buckets.s3_client import S3Location, parse
from sr3core.errors import MissingError, StorageError


@pytest.mark.parametrize(
    ("uri", "parts", "expected"),
    [
        ("s3://bucket", ("a", "b"), "s3://bucket/a/b"),
        ("s3://bucket/prefix/", ("a",), "s3://bucket/prefix/a"),
        ("s3://b/p?endpoint_override=http://h:1", ("a b",), "s3://b/p/a b?endpoint_override=http://h:1"),
        ("s3://b/p", ("what?.jpg",), "s3://b/p/what?.jpg"),
        ("s3://b?endpoint_override=h:1&scheme=http", ("/a?b#c",), "s3://b//a?b#c?endpoint_override=h:1&scheme=http"),
        ("/data/x", ("a",), "/data/x/a"),
        ("file:///data/x", ("a",), "/data/x/a"),
    ],
)
def test_join_keeps_what_a_uri_is(uri: str, parts: tuple[str, ...], expected: str) -> None:
    assert uris.join(uri, *parts) == expected
    assert uris.absolute(uris.join(uri, *parts)) == expected


def test_bad_uris_say_what_is_expected() -> None:
    for uri in ("s3://", "s3://bucket/x?endpoint=http://h:1", "s3://bucket/x?endpoint_overide=http://h:1"):
        with pytest.raises(StorageError, match=r"write s3://bucket/prefix"):
            parse(uri)


@pytest.mark.parametrize(
    ("uri", "remedy"),
    [
        (
            "gs://bucket/x",
            r".*write s3://bucket/prefix, and set AWS_ENDPOINT_URL=https://storage.googleapis.com.* HMAC key",
        ),
        ("az://container/x", r"mount the container with blobfuse2"),
        ("abfss://c@account.dfs.core.windows.net/x", r"mount the container with blobfuse2"),
        ("https://host/archive.tar", r"fetch the archive"),
        ("s3a://bucket/x", r"write s3:// for the same bucket"),
        ("ftp://host/x", r"use a path or s3://"),
    ],
)
def test_other_schemes_are_refused_with_what_reaches_the_same_data(uri: str, remedy: str) -> None:
    with pytest.raises(StorageError, match=f"{uri.partition(':')[0]}:// is not supported; .*{remedy}"):
        uris.exists(uri)


@pytest.mark.parametrize(
    "key", ["what?.jpg", "photo.jpg?width=500&height=300", "a#b.jpg", "/x.jpg", "d//x.jpg", "?", "a=b?c"]
)
@pytest.mark.parametrize("options", ["", "?endpoint_override=http://h:1", "?scheme=http&endpoint_override=h:1"])
def test_a_listed_key_is_read_by_the_uri_that_join_makes_of_it(key: str, options: str) -> None:
    for prefix in ("", "/p", "/p?q"):
        uri = uris.join(f"s3://bucket{prefix}{options}", key)
        endpoint = "http://h:1" if options else None
        assert parse(uri) == S3Location("bucket", f"{prefix[1:]}/{key}" if prefix else key, endpoint)
        assert uris.name_of(uri) == key.rpartition("/")[2]


def test_local_writes_are_whole(tmp_path: Path) -> None:
    path = str(tmp_path / "a" / "b")
    uris.write_atomic(path, b"first")
    uris.write_atomic(path, b"second")
    assert uris.read_bytes(path) == b"second"
    assert os.listdir(tmp_path / "a") == ["b"]
    assert uris.read_range(path, 2, 3) == b"con"
    with pytest.raises(MissingError, match="truncated"):
        uris.read_range(path, 4, 10)
    with pytest.raises(MissingError, match="No such file"):
        uris.read_bytes(path + "x")
    with pytest.raises(StorageError, match="b: cannot be written to: is not a folder; choose another folder"):
        uris.write_atomic(str(tmp_path / "a" / "b" / "below a file"), b"")


@pytest.mark.parametrize(
    ("uri", "folder", "below"),
    [
        ("/a/b", "/a/b", True),
        ("/a/b/c", "/a/b", True),
        ("/a/bc", "/a/b", False),
        ("/a", "/a/b", False),
        ("/a", "/", True),
        ("s3://k/a/b?endpoint_override=http://h:1", "s3://k/a?endpoint_override=http://h:1", True),
        ("s3://k/a/", "s3://k/a", True),
        ("s3://k/ab", "s3://k/a/", False),
        ("s3://k/a/b", "/k/a", False),
    ],
)
def test_what_is_below_a_folder(uri: str, folder: str, below: bool) -> None:
    assert uris.is_below(uri, folder) is below


def test_of_several_that_create_a_file_one_is_first(place):
    uri = uris.join(place, "file")
    assert uris.create(uri, b"one")
    assert not uris.create(uri, b"two")
    assert uris.read_bytes(uri) == b"one"
    assert [name for name, _ in uris.list_files(place)] == ["file"]


def test_a_pipe_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    """As root, `--out /dev/null` would be everybody's last line there."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(StorageError, match=r"pipe is a device, pipe or socket; name a file"):
        uris.write_atomic(str(tmp_path / "pipe"), b"x")
    assert (tmp_path / "pipe").is_fifo()
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"], "nothing is left over"
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    uris.write_atomic(str(tmp_path / "link"), b"x")
    assert (tmp_path / "link").read_bytes() == b"x", "a link is replaced, not what it leads to"


def test_a_model_in_the_box_is_only_read_and_the_refusal_says_how_to_copy_it() -> None:
    with pytest.raises(StorageError, match="builtin://photos-4x is only read; `sr3 export builtin://photos-4x --out"):
        uris.exists("builtin://photos-4x")
