"""A file over a function that reads at an offset behaves as a file on a disk does."""

import io
import threading
from collections import Counter
from random import Random

import pytest

from pipelines.storage.range_file import PIECE_BYTES, RangeFile, SequentialFile
from sr3core.errors import StorageError

DATA = bytes(range(200))


def opened(data: bytes = DATA, size: int | None = None) -> io.BufferedReader:
    return io.BufferedReader(RangeFile(lambda offset, n: data[offset : offset + n], size or len(data)), 16)


@pytest.mark.parametrize(
    ("offset", "whence"),
    [(0, io.SEEK_SET), (150, io.SEEK_SET), (-30, io.SEEK_END), (7, io.SEEK_CUR), (500, io.SEEK_SET)],
)
def test_it_reads_what_a_file_in_memory_reads(offset, whence):
    ours, expected = opened(), io.BytesIO(DATA)
    for file in (ours, expected):
        file.seek(20)
        file.seek(offset, whence)
    assert ours.tell() == expected.tell()
    assert ours.read(33) == expected.read(33)
    assert ours.read() == expected.read()


def test_nothing_is_read_beyond_its_end():
    asked = []
    file = RangeFile(lambda offset, size: asked.append((offset, size)) or DATA[offset : offset + size], 50)
    assert file.read(80) == DATA[:50]
    assert file.read(80) == b""
    assert asked == [(0, 50)]


def test_what_is_shorter_than_its_size_ends_early():
    assert opened(DATA[:40], size=100).read() == DATA[:40]


LONG = Random(0).randbytes(20 * PIECE_BYTES + 12345)


class Recorded:
    """Reads LONG, and records what was asked for."""

    def __init__(self) -> None:
        self.asked: Counter[int] = Counter()
        self.num_bytes = 0
        self.both = threading.Barrier(2)

    def read(self, offset: int, size: int) -> bytes:
        self.asked[offset] += 1
        self.num_bytes += size
        return LONG[offset : offset + size]

    def read_two_at_once(self, offset: int, size: int) -> bytes:
        if 4 * PIECE_BYTES <= offset < 6 * PIECE_BYTES:
            self.both.wait(30)  # breaks, which is an error, if no other thread reads the other one meanwhile
        return self.read(offset, size)


def from_front(read) -> io.BufferedReader:
    return io.BufferedReader(SequentialFile(read, len(LONG)), PIECE_BYTES)


@pytest.mark.parametrize("seed", range(20))
def test_what_is_read_ahead_is_what_is_there_however_it_is_read(seed):
    random, expected = Random(seed), io.BytesIO(LONG)
    with from_front(Recorded().read) as ours:
        for _ in range(60):
            step = random.choice((0, 512, 50_000, 200_000, 3_000_000, -2_000_000))
            position = max(expected.tell() + step, 0)
            for file in (ours, expected):
                file.seek(position)
            size = random.choice((512, 70_000, 1_500_000))
            assert ours.read(size) == expected.read(size)


def test_who_reads_on_has_each_byte_fetched_once_and_several_at_once():
    recorded = Recorded()
    with from_front(recorded.read_two_at_once) as file:
        while file.read(512):  # a header, and then over a small photo
            file.seek(50_000, io.SEEK_CUR)
    assert set(recorded.asked.values()) == {1}, "no piece twice"
    assert recorded.num_bytes <= len(LONG) + PIECE_BYTES


def test_who_jumps_fetches_no_more_than_it_reads():
    recorded = Recorded()
    with from_front(recorded.read) as file:
        for number in range(1, 5):
            file.seek(4 * number * PIECE_BYTES)
            file.read(512)
    assert recorded.num_bytes == 4 * PIECE_BYTES


def test_an_error_of_what_was_read_ahead_is_raised_where_it_is_wanted():
    def read(offset: int, size: int) -> bytes:
        if offset >= 3 * PIECE_BYTES:
            raise StorageError("refused")
        return LONG[offset : offset + size]

    with from_front(read) as file:
        assert file.read(2 * PIECE_BYTES) == LONG[: 2 * PIECE_BYTES]
        file.read(PIECE_BYTES // 2)
        with pytest.raises(StorageError, match="refused"):
            file.read(PIECE_BYTES)
