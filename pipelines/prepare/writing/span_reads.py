"""Images that lie side by side in a tar are read with one request: a bucket answers each after tens of milliseconds."""

import threading
from collections.abc import Iterator, Sequence

from pipelines.prepare.plan.buckets import SEGMENT_BYTES
from pipelines.prepare.writing.pairs import Reading
from pipelines.storage.uris import join, read_range
from sr3core.errors import MissingError

_MAX_GAP_BYTES = 1 << 16
"""What may lie between two images that are read together: texts, and images of another split."""


class SpanReads:
    """Reads the images of a shard; safe for threads.

    Args:
        readings: all that will be read, in their order.
    """

    def __init__(self, readings: Sequence[Reading]) -> None:
        self._spans = {reading: span for span in _spans(readings) for reading in span.readings}

    def read(self, reading: Reading) -> bytes:
        """The bytes of an image; raises what reading it alone raises."""
        span = self._spans.get(reading)
        data = None if span is None else span.take(reading)
        return reading.read() if data is None else data


class _Span:
    """Neighbours in a tar. Their bytes are held from the first of them to the last."""

    def __init__(self, readings: Sequence[Reading]) -> None:
        self.readings = readings
        self._left = len(readings)
        self._first, self._data = readings[0].item.offset, b""
        self._lock = threading.Lock()

    def take(self, reading: Reading) -> bytes | None:
        """The bytes of one of them, each once; None if it must be read alone."""
        with self._lock:
            if self._left == len(self.readings):
                self._data = self._read()
            self._left -= 1
            start = reading.item.offset - self._first
            data = self._data[start : start + reading.item.size]
            if self._left <= 0:
                self._data = b""
        return data if len(data) == reading.item.size else None

    def _read(self) -> bytes:
        last = self.readings[-1].item
        try:
            return read_range(place_of(self.readings[0]), self._first, last.offset + last.size - self._first)
        except MissingError:  # the tar is cut off, or gone: each image says what that means for it
            return b""


def place_of(reading: Reading) -> str:
    """The file that holds an image."""
    return join(reading.source, reading.item.path) if reading.item.path else reading.source


def _spans(readings: Sequence[Reading]) -> Iterator[_Span]:
    """Runs of two or more neighbours, of SEGMENT_BYTES at most."""
    run: list[Reading] = []
    for reading in readings:
        if run and not _continues(run, reading):
            if len(run) > 1:
                yield _Span(run)
            run = []
        if reading.how == "range":
            run.append(reading)
    if len(run) > 1:
        yield _Span(run)


def _continues(run: Sequence[Reading], reading: Reading) -> bool:
    before, item = run[-1].item, reading.item
    gap = item.offset - (before.offset + before.size)
    whole = item.offset + item.size - run[0].item.offset
    return (
        item.how == "range"
        and (reading.source, item.path) == (run[-1].source, before.path)
        and 0 <= gap <= _MAX_GAP_BYTES
        and whole <= SEGMENT_BYTES
    )
