"""A listing side by side is the listing one page after another: every name once."""

from collections.abc import Iterator

import pytest

from pipelines.images.file_names import IgnoredFiles
from pipelines.images.folder_files import each_file_below
from pipelines.prepare.sources.bucket_files import files_in_bucket
from pipelines.storage.buckets import s3_listing
from pipelines.storage.buckets.s3_listing import Branch, branches, divide_by_names, list_branches
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


FLAT = [
    *(f"{number * 2654435761 % 2**32:08x}.jpg" for number in range(150)),
    *(f"photo_{number}.jpg" for number in range(150)),
    *("é", "photo_", "photo_1", "ä/1.jpg", "\U0001f600.jpg", "\U0010ffff", "\U0010ffff\U0010ffff.jpg"),
]


def together(uri: str) -> list[tuple[str, int]]:
    found, left = list_branches(uri, branches(uri))
    while left:
        more, left = list_branches(uri, divide_by_names(uri, left))
        found += more
    return found


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
    assert together(uri) == sorted(list_files(uri))


@pytest.mark.parametrize("enough", [1, 20, 512])
@pytest.mark.parametrize("page", [4, 30])
def test_names_of_a_flat_folder_are_found_once_in_any_ranges(slow, monkeypatch, enough, page) -> None:
    server, uri = slow
    for name, value in (("_PAGE_NAMES", page), ("_PAGES_AT_ONCE", 2), ("ENOUGH_RANGES", enough)):
        monkeypatch.setattr(s3_listing, name, value)
    for folder in ("", "other/"):
        for name in FLAT:
            server.put(f"bucket/in/{folder}{name}", b"x")
    assert sorted(together(uri)) == sorted([(folder + name, 1) for folder in ("", "other/") for name in FLAT])


def test_ranges_on_a_real_server_hold_every_name_once(s3_server: S3Server, monkeypatch) -> None:
    for name, value in (("_PAGE_NAMES", 4), ("_PAGES_AT_ONCE", 2), ("ENOUGH_RANGES", 12)):
        monkeypatch.setattr(s3_listing, name, value)
    s3_server.create_bucket("ranges")
    names = [*FLAT[:60], *FLAT[150:210], "ü 1.jpg", "what?#.jpg"]
    for name in names:
        s3_server.client().put_object(Bucket="ranges", Key=f"in/{name}", Body=b"x")
    uri = f"s3://ranges/in?endpoint_override={s3_server.endpoint}"
    assert sorted(together(uri)) == sorted((name, 1) for name in names)


def test_a_flat_folder_is_listed_by_many_requests_at_once(slow, monkeypatch) -> None:
    server, uri = slow
    monkeypatch.setattr(s3_listing, "_PAGE_NAMES", 50)
    for number in range(3000):
        server.objects[f"bucket/in/{number * 2654435761 % 2**32:08x}.jpg"] = b""
    server.latency = 0.1
    server.requests.clear()
    listed = [name for name, _ in files_in_bucket(uri, IgnoredFiles(), ())]
    assert sorted(listed) == [name.removeprefix("bucket/in/") for name in sorted(server.objects)]
    assert server.most_at_once >= 10
    assert server.requests["LIST"] < 60 + 60


def test_a_task_returns_a_bounded_number_of_names(slow, monkeypatch) -> None:
    server, uri = slow
    monkeypatch.setattr(s3_listing, "_PAGE_NAMES", 10)
    for number in range(2000):
        server.objects[f"bucket/in/{number:06d}.jpg"] = b""
    left = branches(uri)
    while left:
        found, rest = list_branches(uri, left)
        assert len(found) <= 160 * len(left)
        left = divide_by_names(uri, rest)


def test_a_listing_that_changes_while_it_is_read_loses_no_name_that_stays(slow, monkeypatch) -> None:
    """Between two rounds of requests names come and go, before and behind what has been listed."""
    server, uri = slow
    monkeypatch.setattr(s3_listing, "_PAGE_NAMES", 10)
    monkeypatch.setattr(s3_listing, "_PAGES_AT_ONCE", 2)
    stay = {f"{number:05d}.jpg" for number in range(0, 3000, 2)}
    for name in stay:
        server.put(f"bucket/in/{name}", b"x")
    found, left = list_branches(uri, branches(uri))
    for step in range(1, 3000, 500):
        server.put(f"bucket/in/{step:05d}.jpg", b"x")
        server.objects.pop(f"bucket/in/{step - 500:05d}.jpg", None)
        server.put(f"bucket/in/{step:05d} again.jpg", b"x")
        more, left = list_branches(uri, divide_by_names(uri, left))
        found += more
    while left:
        more, left = list_branches(uri, divide_by_names(uri, left))
        found += more
    names = [name for name, _ in found]
    assert len(set(names)) == len(names)
    assert stay <= set(names)


def test_pages_without_names_are_not_the_end(slow, monkeypatch) -> None:
    """S3 may answer with fewer names than were asked for, and with none."""
    server, uri = slow
    server.put("bucket/in/1.jpg", b"x")
    real, empty = server._page, b"<ListBucketResult><IsTruncated>true</IsTruncated>%s</ListBucketResult>"
    answers = iter([empty % b"<NextContinuationToken>bucket/in/</NextContinuationToken>"] * 40)
    monkeypatch.setattr(server, "_page", lambda *asked: next(answers, None) or real(*asked))
    assert together(uri) == [("1.jpg", 1)]


def test_a_bucket_without_order_is_not_divided_by_names(slow) -> None:
    server, uri = slow
    left = [Branch(is_whole=True, after="000160.jpg", token="behind it")]
    assert divide_by_names(uri.replace("s3://bucket", "s3://bucket--zone--x-s3"), left) == left
    assert not server.requests


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
