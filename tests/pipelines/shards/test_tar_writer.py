"""Tar shards: the same samples give the same bytes, at the offsets that are noted, and half a shard leaves nothing."""

import hashlib
import tarfile

import pytest
from webdataset import WebDataset  # pyright: ignore[reportAttributeAccessIssue] - its stubs do not export it

from pipelines.shards.tar_writer import ShardWriter
from sr3core.errors import StorageError

SAMPLES = {"a": {"hr.png": b"first", "json": b"{}"}, "b": {"hr.png": b"x" * 1025, "json": b'{"n": 1}', "cls": b"3"}}


def write(path):
    with ShardWriter(str(path)) as writer:
        for key, members in SAMPLES.items():
            writer.add(key, members)
        return writer, writer.commit()


def test_offsets_sizes_and_sum_are_those_of_the_file(tmp_path):
    writer, sha256 = write(tmp_path / "a.tar")
    data = (tmp_path / "a.tar").read_bytes()
    assert sha256 == hashlib.sha256(data).hexdigest()
    assert writer.num_bytes == len(data)
    assert writer.keys == list(SAMPLES)
    for members, places in zip(SAMPLES.values(), writer.members, strict=True):
        assert {name: data[offset : offset + size] for name, (offset, size) in places.items()} == members


def test_it_is_plain_webdataset(tmp_path):
    write(tmp_path / "a.tar")
    read = {s["__key__"]: s for s in WebDataset(str(tmp_path / "a.tar"), shardshuffle=False)}
    assert list(read) == list(SAMPLES)
    for key, members in SAMPLES.items():
        assert {name: read[key][name] for name in members} == members


def test_the_same_samples_give_the_same_bytes_without_time_and_owner(tmp_path):
    write(tmp_path / "a.tar")
    write(tmp_path / "b.tar")
    data = (tmp_path / "a.tar").read_bytes()
    assert data == (tmp_path / "b.tar").read_bytes()
    with tarfile.open(tmp_path / "a.tar") as archive:
        for member in archive:
            assert (member.mtime, member.uid, member.gid, member.uname, member.gname) == (0, 0, 0, "", "")
            assert data[member.offset :][257:265] == b"ustar\x0000"


def test_without_a_commit_or_after_an_error_nothing_is_left(tmp_path):
    with ShardWriter(str(tmp_path / "a.tar")) as writer:
        writer.add("a", SAMPLES["a"])
    with pytest.raises(ZeroDivisionError), ShardWriter(str(tmp_path / "a.tar")) as writer:  # noqa: PT012
        writer.add("a", SAMPLES["a"])
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_an_empty_shard_is_no_file(tmp_path):
    with ShardWriter(str(tmp_path / "a.tar")) as writer:
        assert writer.commit() == ""
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="file: cannot be written to: is not a folder"):
        ShardWriter(str(tmp_path / "file" / "a.tar"))
