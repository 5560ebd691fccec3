"""Images are read ahead in their order, a bounded number of bytes at once; what a read raises comes in its turn."""

import threading

import pytest

from pipelines.prepare.sources.items import SourceItem
from pipelines.prepare.writing.read_ahead import AHEAD_BYTES, NUM_READS, read_ahead
from sr3core.errors import StorageError

ITEMS = [SourceItem(f"{number}.jpg", f"{number}.jpg") for number in range(100)]


def test_while_one_image_is_looked_at_others_are_read() -> None:
    """All reads under way wait for one another: one after another, they would wait for ever."""
    together = threading.Barrier(NUM_READS, timeout=60)

    def read(item: SourceItem) -> bytes:
        together.wait()
        return item.name.encode()

    items = ITEMS[: 5 * NUM_READS]
    found = [(item, wait()) for item, wait in read_ahead(items, read)]
    assert found == [(item, item.name.encode()) for item in items]


def test_an_error_comes_in_its_turn_and_the_following_images_are_read_all_the_same() -> None:
    def read(item: SourceItem) -> bytes:
        if item.name == "3.jpg":
            raise StorageError("gone; look for it")
        return item.name.encode()

    for item, wait in read_ahead(ITEMS, read):
        if item.name == "3.jpg":
            with pytest.raises(StorageError, match="gone"):
                wait()
        else:
            assert wait() == item.name.encode()


def test_of_large_images_fewer_are_in_memory_at_once() -> None:
    begun: list[str] = []

    def read(item: SourceItem) -> bytes:
        begun.append(item.name)
        return bytes(AHEAD_BYTES // 4)

    most = 0
    for number, (_, wait) in enumerate(read_ahead(ITEMS, read)):
        wait()
        if number >= NUM_READS:
            most = max(most, len(begun) - number)
    assert most <= 6


def test_a_shard_that_is_given_up_reads_no_further() -> None:
    begun: list[str] = []
    reads = read_ahead(ITEMS, lambda item: begun.append(item.name) or b"")
    next(reads)[1]()
    reads.close()
    assert len(begun) <= 2 * NUM_READS


def test_rows_of_a_group_are_read_by_one_thread() -> None:
    rows = [item._replace(how="row") for item in ITEMS]
    threads = set()

    def read(item: SourceItem) -> bytes:
        threads.add(threading.get_ident())
        return b""

    assert len([wait() for _, wait in read_ahead(rows, read)]) == len(rows)
    assert len(threads) == 1


def test_what_did_not_fit_beside_a_large_image_is_read_when_that_is_decoded() -> None:
    failed: set[str] = set()

    def read(item: SourceItem) -> bytes:
        if item.name not in failed:
            failed.add(item.name)
            raise MemoryError
        return item.name.encode()

    assert [wait() for _, wait in read_ahead(ITEMS[:20], read)] == [item.name.encode() for item in ITEMS[:20]]
