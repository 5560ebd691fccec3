"""Writing piece by piece: whole or not at all; on its way to a bucket, a large object is nowhere whole."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.storage.atomic_writers import open_writer, write_pieces
from pipelines.storage.buckets import s3_client
from pipelines.storage.uris import exists, read_bytes
from sr3core.errors import StorageError
from tests.s3_server import FaultyProxy, S3Server, s3_variables

SMALLEST_PART = 5 << 20


@pytest.fixture(scope="module")
def bucket(s3_server: S3Server) -> Iterator[tuple[FaultyProxy, str]]:
    s3_server.create_bucket("pieces")
    with s3_variables(AWS_MAX_ATTEMPTS="2"), FaultyProxy(s3_server.port) as proxy:
        yield proxy, f"?endpoint_override={proxy.endpoint}"


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.storage.atomic_writers.PART_BYTES", SMALLEST_PART)


def uploads(uri: str) -> list[str]:
    with s3_client.requests_on(uri) as (client, place):
        found = client.list_multipart_uploads(Bucket=place["Bucket"]).get("Uploads", ())
        return [upload["Key"] for upload in found if upload["Key"] == place["Key"]]


@pytest.mark.parametrize("sizes", [[], [0], [10], [SMALLEST_PART], [3, SMALLEST_PART, 7], [1 << 20] * 17])
def test_an_object_and_a_file_are_what_was_written(bucket: tuple[FaultyProxy, str], tmp_path: Path, sizes) -> None:
    pieces = [os.urandom(size) for size in sizes]
    for uri in (f"s3://pieces/whole-{len(sizes)}-{sum(sizes)}{bucket[1]}", str(tmp_path / "file")):
        write_pieces(uri, pieces)
        assert read_bytes(uri) == b"".join(pieces)


def test_before_its_commit_there_is_nothing_to_see_and_no_file_is_made(bucket: tuple[FaultyProxy, str]) -> None:
    uri = f"s3://pieces/late{bucket[1]}"
    before = set(Path(tempfile.gettempdir()).glob(f"sr3-{os.getuid()}/*/.*late*"))
    writer = open_writer(uri)
    for _ in range(4):
        writer.write(os.urandom(SMALLEST_PART))
    assert not exists(uri)
    assert len(uploads(uri)) == 1
    assert set(Path(tempfile.gettempdir()).glob(f"sr3-{os.getuid()}/*/.*late*")) == before
    writer.commit()
    writer.discard()
    assert len(read_bytes(uri)) == 4 * SMALLEST_PART
    assert not uploads(uri)


def test_what_is_discarded_leaves_neither_an_object_nor_an_upload(bucket: tuple[FaultyProxy, str]) -> None:
    uri = f"s3://pieces/none{bucket[1]}"
    writer = open_writer(uri)
    writer.write(os.urandom(2 * SMALLEST_PART + 1))
    writer.discard()
    writer.discard()
    assert not exists(uri)
    assert not uploads(uri)


def test_a_part_that_is_refused_is_an_error_that_names_the_object(bucket: tuple[FaultyProxy, str]) -> None:
    proxy, query = bucket
    uri = f"s3://pieces/refused{query}"
    proxy.fault = lambda method, path: "503" if "partNumber=2" in path else None
    try:
        with pytest.raises(StorageError, match="s3://pieces/refused"):
            write_pieces(uri, [os.urandom(3 * SMALLEST_PART)])
    finally:
        proxy.fault = lambda method, path: None
    assert not exists(uri)
    assert not uploads(uri), "nobody pays for its first part"
