"""Objects on a real S3 server: cut connections, refusals, missing rights, an object that changes while it is read."""

import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipelines.prepare.sources.listing import open_source
from pipelines.runs.run_folder import create_run
from pipelines.settings.presets import preset
from pipelines.storage import uris
from pipelines.storage.buckets import s3, s3_client
from pipelines.storage.uris import exists, list_files, read_bytes, write_atomic
from sr3core.errors import DataError, MissingError, StorageError
from tests.s3_server import READER, FaultyProxy, S3Server, s3_variables


@pytest.fixture(scope="module")
def bucket(s3_server: S3Server) -> Iterator[tuple[FaultyProxy, str]]:
    """A proxy in front of the server, and what to append to an s3:// URI to reach it."""
    s3_server.create_bucket("images")
    with s3_variables(AWS_MAX_ATTEMPTS="3"), FaultyProxy(s3_server.port) as proxy:
        yield proxy, f"?endpoint_override={proxy.endpoint}"


def test_what_is_not_on_s3(bucket: tuple[FaultyProxy, str]) -> None:
    _, query = bucket
    assert not uris.exists(f"s3://images/none{query}")
    with pytest.raises(DataError, match="does not exist"):
        open_source(f"s3://images/none{query}")
    with pytest.raises(MissingError, match="s3://images/none"):
        uris.read_bytes(f"s3://images/none{query}")
    with pytest.raises(MissingError, match="s3://images/none"):
        uris.open_seekable(f"s3://images/none{query}")


def test_times_of_a_listing_are_not_parsed_which_would_take_most_of_its_time(bucket: tuple[FaultyProxy, str]) -> None:
    _, query = bucket
    uris.write_atomic(f"s3://images/dated/a.jpg{query}", b"a")
    with s3_client.requests_on(f"s3://images/dated{query}") as (client, place):
        (item,) = client.list_objects_v2(Bucket=place["Bucket"], Prefix="dated/")["Contents"]
    assert (item["Key"], item["Size"]) == ("dated/a.jpg", 1)
    assert isinstance(item["LastModified"], str)


def test_a_read_resumes_after_a_cut_connection(bucket: tuple[FaultyProxy, str]) -> None:
    proxy, query = bucket
    data = os.urandom(5_000_000)
    uri = f"s3://images/large{query}"
    uris.write_atomic(uri, data)
    requests = []

    def fault(method: str, path: str) -> str | None:
        requests.append(method)
        return "cut" if len(requests) < 4 else None

    proxy.fault = fault
    try:
        assert uris.read_bytes(uri) == data
        assert len(requests) == 4
        requests.clear()
        assert uris.read_range(uri, 1_000_000, 3_000_000) == data[1_000_000:4_000_000]
    finally:
        proxy.fault = lambda method, path: None
    with uris.open_seekable(uri) as file:
        file.seek(-100, io.SEEK_END)
        assert file.read() == data[-100:]


def test_a_large_object_comes_over_many_connections_that_break_off(
    bucket: tuple[FaultyProxy, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each brings half of what is left; only connections that bring nothing are in vain."""
    proxy, query = bucket
    monkeypatch.setattr(s3, "_CHUNK_BYTES", 100)
    monkeypatch.setattr(s3, "_MAX_PAUSE_SECONDS", 0.0)
    uri, data = f"s3://images/through breaks{query}", os.urandom(1_000_000)
    uris.write_atomic(uri, data)
    left = iter(range(s3._MAX_CUTS + 4))
    proxy.fault = lambda method, path: "cut" if next(left, None) is not None else None
    try:
        assert uris.read_bytes(uri) == data
        assert next(left, None) is None
        proxy.fault = lambda method, path: "cut"
        with pytest.raises(StorageError, match="8 connections broke off without a byte"):
            uris.read_bytes(uri)
    finally:
        proxy.fault = lambda method, path: None


@pytest.mark.parametrize("key", ["what?.jpg", "photo.jpg?width=500", "a#b.jpg", "100%25.jpg", "a+b.jpg"])
def test_keys_that_look_like_parts_of_a_uri(bucket: tuple[FaultyProxy, str], s3_server: S3Server, key: str) -> None:
    client = s3_server.client()
    client.put_object(Bucket="images", Key=f"odd/{key}", Body=key.encode())
    client.put_object(Bucket="images", Key="odd/what", Body=b"another object")
    folder = f"s3://images/odd{bucket[1]}"
    assert (key, len(key)) in list(list_files(folder))
    assert read_bytes(uris.join(folder, key)) == key.encode()


def test_an_object_that_changes_between_two_parts_of_a_read_is_not_mixed(bucket: tuple[FaultyProxy, str]) -> None:
    proxy, query = bucket
    uri = f"s3://images/changing{query}"
    uris.write_atomic(uri, b"a" * 2_000_000)
    requests = []

    def fault(method: str, path: str) -> str | None:
        requests.append(method)
        return "cut" if method == "GET" and requests.count("GET") == 1 else None

    proxy.fault = fault
    original = s3_client.client_for(s3_client.parse(uri).endpoint).get_object
    answers = []

    def get_object(**options: object) -> object:
        if answers:
            uris.write_atomic(uri, b"b" * 2_000_000)
        answers.append(original(**options))
        return answers[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(s3_client.client_for(s3_client.parse(uri).endpoint), "get_object", get_object)
        with pytest.raises(StorageError, match="PreconditionFailed"):
            uris.read_bytes(uri)
    proxy.fault = lambda method, path: None


def test_a_server_that_only_refuses_is_a_clear_error(bucket: tuple[FaultyProxy, str]) -> None:
    proxy, query = bucket
    proxy.fault = lambda method, path: "503"
    try:
        with pytest.raises(StorageError, match=r"s3://images/x.*(SlowDown|503)"):
            uris.write_atomic(f"s3://images/x{query}", b"data")
    finally:
        proxy.fault = lambda method, path: None
    assert not uris.exists(f"s3://images/x{query}")


@pytest.fixture
def as_other(bucket: tuple[FaultyProxy, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Become somebody else to the server."""

    def become(**environment: str) -> None:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        s3_client.client_for.cache_clear()

    yield become
    s3_client.client_for.cache_clear()


def test_a_denied_access_is_reported_with_its_remedy(
    bucket: tuple[FaultyProxy, str], as_other: Callable[..., None]
) -> None:
    options = bucket[1]
    write_atomic(f"s3://images/there{options}", b"there")
    as_other(AWS_SECRET_ACCESS_KEY="wrong")
    acts: tuple[Callable[[str], object], ...] = (
        lambda uri: list(list_files(uri)),
        *(read_bytes, exists, lambda uri: write_atomic(uri, b"x")),
    )
    for act in acts:
        with pytest.raises(StorageError, match=r"s3://images/there.*AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"):
            act(f"s3://images/there{options}")
    as_other(**READER)
    assert read_bytes(f"s3://images/there{options}") == b"there"
    with pytest.raises(StorageError, match=r"s3://images/new.*s3:ListBucket, GetObject, PutObject, DeleteObject"):
        write_atomic(f"s3://images/new{options}", b"x")
    assert not exists(f"s3://images/new{options}")


def test_a_run_in_a_bucket_that_may_only_be_read_ends_at_once_and_writes_nothing(
    bucket: tuple[FaultyProxy, str], as_other: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.runs.bucket_runs.WORKING_COPIES", tmp_path)
    as_other(**READER)
    uri = f"s3://images/run{bucket[1]}"
    with pytest.raises(StorageError, match=r"s3://images/run/config\.json.*s3:ListBucket"):
        create_run(uri, preset("small-classes"), "data", {}, fresh=False)
    assert not list(list_files(uri))


def test_a_missing_bucket_is_reported(bucket: tuple[FaultyProxy, str]) -> None:
    with pytest.raises(StorageError, match=r"s3://none/x.*create the bucket first"):
        list(list_files(f"s3://none/x{bucket[1]}"))


def test_requests_carry_the_headers_that_the_environment_asks_for(bucket: tuple[FaultyProxy, str]) -> None:
    proxy, query = bucket
    uri = f"s3://images/paid{query}"
    with s3_variables(AWS_REQUEST_PAYER="requester"):
        proxy.headers.clear()
        write_atomic(uri, b"x")
        assert read_bytes(uri) == b"x"
        assert exists(uri)
        list(list_files(f"s3://images/folder{query}"))
        uris.delete(uri)
        assert len(proxy.headers) == 5
        assert {headers.get("x-amz-request-payer") for headers in proxy.headers} == {"requester"}
        assert not any("x-amz-server-side-encryption" in headers for headers in proxy.headers)


def test_what_is_written_is_to_be_encrypted_by_the_key_that_the_environment_names(
    bucket: tuple[FaultyProxy, str], tmp_path: Path
) -> None:
    """The server of the tests has no keys, so it is not asked."""
    proxy, query = bucket
    (tmp_path / "large").write_bytes(bytes(9 << 20))
    variables = {"AWS_SERVER_SIDE_ENCRYPTION": "aws:kms", "AWS_SSE_KMS_KEY_ID": "key-1", "AWS_MAX_ATTEMPTS": "1"}
    proxy.fault = lambda method, path: "403"
    try:
        with s3_variables(**variables):
            for write in (
                lambda: write_atomic(f"s3://images/small{query}", b"x"),
                lambda: s3.upload(str(tmp_path / "large"), f"s3://images/large{query}"),
                lambda: s3.create(f"s3://images/new{query}", b"x"),
            ):
                proxy.headers.clear()
                with pytest.raises(StorageError):
                    write()
                (headers,) = proxy.headers
                assert headers["x-amz-server-side-encryption"] == "aws:kms"
                assert headers["x-amz-server-side-encryption-aws-kms-key-id"] == "key-1"
            with pytest.raises(StorageError):
                read_bytes(f"s3://images/small{query}")
            assert "x-amz-server-side-encryption" not in proxy.headers[-1]
    finally:
        proxy.fault = lambda method, path: None


def test_uploads_in_parts_that_nobody_will_finish_are_aborted(
    bucket: tuple[FaultyProxy, str], s3_server: S3Server
) -> None:
    _, query = bucket
    client = s3_server.client()
    for key in ("out/8-16/train-000000.tar", "out/8-16/train-000001.tar", "another/train-000000.tar"):
        upload = client.create_multipart_upload(Bucket="images", Key=key)
        client.upload_part(Bucket="images", Key=key, UploadId=upload["UploadId"], PartNumber=1, Body=bytes(5 << 20))
    with s3_variables(**READER):
        s3.abort_uploads(f"s3://images/out/8-16{query}")  # who may not, leaves it to the bucket's rule
    assert len(client.list_multipart_uploads(Bucket="images")["Uploads"]) == 3
    s3.abort_uploads(f"s3://images/out/8-16{query}")
    left = client.list_multipart_uploads(Bucket="images")["Uploads"]
    assert [upload["Key"] for upload in left] == ["another/train-000000.tar"]
    s3.abort_uploads(f"s3://images/another{query}")
    assert not client.list_multipart_uploads(Bucket="images").get("Uploads")
