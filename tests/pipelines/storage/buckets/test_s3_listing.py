"""A listing side by side is the listing one page after another: every name once, in the same order."""

from collections.abc import Iterator

import pytest

from pipelines.images.file_names import IgnoredFiles
from pipelines.images.folder_files import each_file_below
from pipelines.prepare.sources.bucket_files import files_in_bucket
from pipelines.storage.buckets import s3_listing
from pipelines.storage.buckets.s3_listing import branches, list_branches
from pipelines.storage.uris import list_files
from tests.s3_server import S3Server
from tests.slow_s3 import SlowS3

NAMES = [
    "a/1.jpg",
    "a/b/2.jpg",
    "a-b/3.jpg",
    "a.jpg",
    "deep/1/2/3/4/5.jpg",
    "ä/ü 1.jpg",
    "what?/#.jpg",
    ".hidden/x.jpg",
    "notes.txt",
    *(f"many/{n % 7}/{n}.png" for n in range(60)),
]


@pytest.fixture
def slow() -> Iterator[tuple[SlowS3, str]]:
    with SlowS3() as server:
        yield server, f"s3://bucket/in?endpoint_override={server.endpoint}"


def together(uri: str) -> list[tuple[str, int]]:
    return list(list_branches(uri, branches(uri)))


def test_on_a_real_server_every_file_is_found_once(s3_server: S3Server) -> None:
    s3_server.create_bucket("branches")
    client = s3_server.client()
    for size, name in enumerate([*NAMES, "a/", "empty/"]):
        client.put_object(Bucket="branches", Key=f"in/{name}", Body=b"" if name.endswith("/") else bytes(size))
    uri = f"s3://branches/in?endpoint_override={s3_server.endpoint}"
    assert sorted(together(uri)) == sorted(list_files(uri))
    assert len(together(uri)) == len(NAMES)


@pytest.mark.parametrize("enough", [1, 5, 512])
@pytest.mark.parametrize("pages", [(32, 2), (1, 1)])
def test_the_order_is_that_of_the_keys_however_it_is_divided(slow, monkeypatch, enough, pages) -> None:
    server, uri = slow
    monkeypatch.setattr(s3_listing, "ENOUGH_BRANCHES", enough)
    monkeypatch.setattr(s3_listing, "_MAX_PAGES", pages[0])
    monkeypatch.setattr(s3_listing, "_PAGES_WITHOUT_FOLDERS", pages[1])
    more = [*(f"flat/{n}.jpg" for n in range(2500)), *(f"f/{n}/x.jpg" for n in range(1100))]
    for size, name in enumerate([*NAMES, *more]):
        server.put(f"bucket/in/{name}", bytes(size % 7))
    server.put("bucket/input/not-below.jpg", b"")
    found = together(uri)
    assert found == list(list_files(uri))
    assert [name for name, _ in found] == sorted(name for name, _ in found)


def test_what_is_no_image_is_ignored_as_it_is_elsewhere(slow) -> None:
    server, uri = slow
    for name in (*NAMES, "out/16-64/train-000000.tar"):
        server.put(f"bucket/in/{name}", b"x")
    outputs = [f"s3://bucket/in/out/16-64?endpoint_override={server.endpoint}"]
    here, there = IgnoredFiles(), IgnoredFiles()
    serial = list(each_file_below(uri, here, outputs=outputs))
    assert list(files_in_bucket(uri, there, outputs)) == serial
    assert list(there) == list(here)
    assert len(here) == 2


def test_folders_of_images_are_listed_with_few_more_requests_than_pages(slow) -> None:
    server, uri = slow
    for number in range(20_000):
        server.put(f"bucket/in/train/n{number % 600:04d}/{number}.jpg", b"")
    server.requests.clear()
    assert len(together(uri)) == 20_000
    assert server.requests["LIST"] <= 2 + 600


def test_a_source_in_a_bucket_is_listed_in_tasks(slow, ray_session: str) -> None:
    server, uri = slow
    for number in range(300):
        server.put(f"bucket/in/{number % 60:04d}/{number}.jpg", b"")
    assert list(files_in_bucket(uri, IgnoredFiles(), ())) == list(list_files(uri))
