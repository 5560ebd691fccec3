"""A file over a function that reads at an offset behaves as a file on a disk does."""

import io

import pytest

from pipelines.storage.range_file import RangeFile

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
