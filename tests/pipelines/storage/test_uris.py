"""URIs, whole-or-nothing writes, and every kind of source on a real S3 server with its own endpoint."""

import io
import os
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.prepare.sources import open_source, read_item
from pipelines.runs.run_folder import create_run
from pipelines.settings.presets import preset
from pipelines.storage import s3, uris
from pipelines.storage.uris import exists, list_files, read_bytes, write_atomic
from sr3core.errors import DataError, StorageError
from tests.s3_server import READER, FaultyProxy, S3Server, s3_variables

PICTURES = {f"{number}.png": b"\x89PNG\r\n\x1a\n" + bytes([number]) * 3000 for number in range(3)}


@pytest.mark.parametrize(
    ("uri", "parts", "expected"),
    [
        ("s3://bucket", ("a", "b"), "s3://bucket/a/b"),
        ("s3://bucket/prefix/", ("a",), "s3://bucket/prefix/a"),
        ("s3://b/p?endpoint_override=http://h:1", ("a b",), "s3://b/p/a b?endpoint_override=http://h:1"),
        ("/data/x", ("a",), "/data/x/a"),
        ("file:///data/x", ("a",), "/data/x/a"),
    ],
)
def test_join_keeps_what_a_uri_is(uri: str, parts: tuple[str, ...], expected: str) -> None:
    assert uris.join(uri, *parts) == expected
    assert uris.absolute(uris.join(uri, *parts)) == expected


def test_bad_uris_say_what_is_expected() -> None:
    for uri in ("s3://", "s3://bucket/x?nonsense=1"):
        with pytest.raises(StorageError, match=r"expected s3://bucket/prefix"):
            s3.parse(uri)
    with pytest.raises(StorageError, match=r"gs:// is not supported"):
        uris.exists("gs://bucket/x")


def test_local_writes_are_whole(tmp_path: Path) -> None:
    path = str(tmp_path / "a" / "b")
    uris.write_atomic(path, b"first")
    uris.write_atomic(path, b"second")
    assert uris.read_bytes(path) == b"second"
    assert os.listdir(tmp_path / "a") == ["b"]
    assert uris.read_range(path, 2, 3) == b"con"
    with pytest.raises(StorageError, match="truncated"):
        uris.read_range(path, 4, 10)
    with pytest.raises(StorageError, match="No such file"):
        uris.read_bytes(path + "x")
    with pytest.raises(StorageError, match="b: cannot be written to: is not a folder; take another place"):
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


@pytest.fixture(scope="module")
def bucket(s3_server: S3Server) -> Iterator[tuple[FaultyProxy, str]]:
    """A proxy in front of the server, and what to append to an s3:// URI to reach it."""
    s3_server.create_bucket("images")
    with s3_variables(AWS_MAX_ATTEMPTS="3"), FaultyProxy(s3_server.port) as proxy:
        yield proxy, f"?endpoint_override={proxy.endpoint}"


def archives() -> dict[str, bytes]:
    zipped, tarred, table = io.BytesIO(), io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in PICTURES.items():
            archive.writestr(name, data)
    with tarfile.open(fileobj=tarred, mode="w") as archive:
        for name, data in PICTURES.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    rows = [{"bytes": data, "path": name} for name, data in PICTURES.items()]
    pq.write_table(pa.table({"image": pa.array(rows, struct)}), table, row_group_size=2)
    return {"z.zip": zipped.getvalue(), "t.tar": tarred.getvalue(), "p.parquet": table.getvalue()}


def test_every_kind_of_source_on_s3(bucket: tuple[FaultyProxy, str]) -> None:
    _, query = bucket
    files = {f"kinds/{name.partition('.')[2]}/{name}": data for name, data in archives().items()}
    files |= {f"kinds/folder/deep er/ü/{name}": data for name, data in PICTURES.items()}
    for name, data in files.items():
        uris.write_atomic(f"s3://images/{name}{query}", data)
    for kind in ("zip", "tar", "parquet", "folder"):
        source = open_source(f"s3://images/kinds/{kind}{query}")
        assert source.layout == kind
        assert [read_item(source.uri, item) for item in source.items] == list(PICTURES.values())
    for name in files:
        source = open_source(f"s3://images/{name}{query}") if not name.endswith(".png") else None
        assert source is None or len(source.items) == 3


def test_the_data_sets_own_layouts_on_s3(bucket: tuple[FaultyProxy, str]) -> None:
    _, query = bucket
    one = PICTURES["0.png"]
    inner, outer = io.BytesIO(), io.BytesIO()
    for buffer, name, data in ((inner, "n01443537_1.JPEG", one), (outer, "n01443537.tar", None)):
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            info = tarfile.TarInfo(name)
            content = inner.getvalue() if data is None else data
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    truth = {"val/ILSVRC2012_val_00000001.JPEG": one, "val/ILSVRC2012_validation_ground_truth.txt": b"490\n"}
    layouts: dict[str, tuple[dict[str, bytes], str, int | None]] = {
        "ffhq": ({"images1024x1024/00000/00000.png": one}, "ffhq", None),
        "celebahq": ({"CelebA-HQ-img/0.jpg": one}, "celebahq", None),
        "synsets": ({"train/n01443537/n01443537_1.JPEG": one}, "imagenet", 1),
        "validation": (truth, "imagenet", 65),
        "tar-of-tars": ({"ILSVRC2012_img_train.tar": outer.getvalue()}, "tar", 1),
    }
    for folder, (files, layout, label) in layouts.items():
        for name, data in files.items():
            uris.write_atomic(f"s3://images/own/{folder}/{name}{query}", data)
        below = "/val" if folder == "validation" else ""
        source = open_source(f"s3://images/own/{folder}{below}{query}")
        assert (source.layout, [item.label for item in source.items]) == (layout, [label]), folder
        assert [read_item(source.uri, item) for item in source.items] == [one]
    uris.write_atomic(f"s3://images/own/wild/in-the-wild-images/00000/00000.png{query}", one)
    with pytest.raises(DataError, match=r"in-the-wild images.*not aligned"):
        open_source(f"s3://images/own/wild{query}")


def test_what_is_not_on_s3(bucket: tuple[FaultyProxy, str]) -> None:
    _, query = bucket
    assert not uris.exists(f"s3://images/none{query}")
    with pytest.raises(DataError, match="does not exist"):
        open_source(f"s3://images/none{query}")
    with pytest.raises(StorageError, match="s3://images/none"):
        uris.read_bytes(f"s3://images/none{query}")


def test_a_read_goes_on_where_a_cut_connection_broke_off(bucket: tuple[FaultyProxy, str]) -> None:
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


def test_an_object_that_changes_between_two_parts_of_a_read_is_not_mixed(bucket: tuple[FaultyProxy, str]) -> None:
    proxy, query = bucket
    uri = f"s3://images/changing{query}"
    uris.write_atomic(uri, b"a" * 2_000_000)
    requests = []

    def fault(method: str, path: str) -> str | None:
        requests.append(method)
        return "cut" if method == "GET" and requests.count("GET") == 1 else None

    proxy.fault = fault
    original = s3._client(s3.parse(uri).endpoint).get_object
    answers = []

    def get_object(**options: object) -> object:
        if answers:
            uris.write_atomic(uri, b"b" * 2_000_000)
        answers.append(original(**options))
        return answers[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(s3._client(s3.parse(uri).endpoint), "get_object", get_object)
        with pytest.raises(StorageError, match=r"412|Precondition"):
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
        s3._client.cache_clear()

    yield become
    s3._client.cache_clear()


def test_a_bucket_that_denies_access_is_told_with_what_to_give(
    bucket: tuple[FaultyProxy, str], as_other: Callable[..., None]
) -> None:
    options = bucket[1]
    write_atomic(f"s3://images/there{options}", b"there")
    as_other(AWS_SECRET_ACCESS_KEY="wrong")
    for act in (list_files, read_bytes, exists, lambda uri: write_atomic(uri, b"x")):
        with pytest.raises(StorageError, match=r"s3://images/there.*AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"):
            list(act(f"s3://images/there{options}") or ())
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
        create_run(uri, preset("demo"), "data", {}, fresh=False)
    assert not list(list_files(uri))


def test_a_bucket_that_is_not_there_is_told(bucket: tuple[FaultyProxy, str]) -> None:
    with pytest.raises(StorageError, match=r"s3://none/x.*make the bucket first"):
        list(list_files(f"s3://none/x{bucket[1]}"))
