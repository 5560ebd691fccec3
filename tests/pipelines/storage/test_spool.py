"""What is put aside comes back, from memory and from the disk."""

import tracemalloc

import pytest

from pipelines.storage import spool
from pipelines.storage.spool import SortedSpool, Spool


@pytest.mark.parametrize("memory", [1, 1 << 20])
def test_pieces_come_back_in_any_order_while_more_are_added(memory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "_MEMORY_BYTES", memory)
    pieces = [bytes([number]) * number for number in range(20)]
    aside = Spool()
    extents = []
    for piece in pieces:
        extents.append(aside.append(piece))
        assert aside.read(extents[(len(extents) - 1) // 2]) == pieces[(len(extents) - 1) // 2]
    assert [aside.read(extent) for extent in reversed(extents)] == pieces[::-1]
    assert aside.num_bytes == sum(map(len, pieces))


@pytest.mark.parametrize("count", [0, 9, 10, 57])
def test_records_come_back_in_order_as_often_as_one_likes(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "_RUN_RECORDS", 10)
    monkeypatch.setattr(spool, "_BLOCK_RECORDS", 3)
    records = [((number * 7) % 19, str(number)) for number in range(count)]
    aside: SortedSpool[tuple[int, str]] = SortedSpool()
    for record in records:
        aside.add(record)
    assert list(aside) == list(aside) == sorted(records)
    aside.add((-1, ""))
    assert list(aside) == [(-1, ""), *sorted(records)]
    assert aside.num_records == count + 1


@pytest.mark.parametrize("counts", [(), (1, 0, 2), (57, 31, 3, 10)])
def test_records_of_several_are_in_the_order_of_all(counts: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "_RUN_RECORDS", 10)
    monkeypatch.setattr(spool, "_BLOCK_RECORDS", 3)
    every, whole = [], SortedSpool[int]()
    for count in counts:
        part = SortedSpool[int]()
        for number in range(count):
            part.add((number * 7 + count) % 61)
            every.append((number * 7 + count) % 61)
        whole.add_runs(part.runs())
    assert list(whole) == sorted(every)
    assert whole.num_records == len(every)


def test_the_memory_holds_a_few_of_many_records(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "_MEMORY_BYTES", 1 << 16)
    monkeypatch.setattr(spool, "_RUN_RECORDS", 1000)
    aside: SortedSpool[str] = SortedSpool()
    tracemalloc.start()
    for number in range(100_000):
        aside.add(f"train/{number * 7919 % 100_000:09d}.txt")
    assert sum(1 for _ in aside) == 100_000
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 4_000_000, "100,000 such texts are 7 MB and their list"
