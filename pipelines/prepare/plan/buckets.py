"""An external sort of a source's images by split and a hash of their names, in tasks that hold a bucket at a time."""

import hashlib
import itertools
import pickle
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from typing import NamedTuple

from pipelines.prepare.sources.items import SourceItem, decode_items, from_row, in_order, numbering, to_row
from pipelines.runtime.tasks import map_in_tasks
from pipelines.storage.spool import Extent, Spool
from sr3core import strict_json
from sr3core.randomness import derive_seed

NUM_BUCKETS = 256
"""Buckets of a split, by the first byte of the key that orders it."""

SEGMENT_BYTES = 4 << 20
"""What of a tar is read with one request at most, where images that lie side by side stay together."""

_TASK_RECORDS = 250_000
"""Records that a task sorts at a time, unless one bucket has more: about 100 MB."""

Record = tuple[bytes, bytes]
"""The key that orders an image within its split, and its row of plan.jsonl."""


class Block(NamedTuple):
    """Records of one bucket, in no particular order."""

    split: str
    """Their split."""
    bucket: int
    """Number of their bucket."""
    num_records: int
    """How many there are."""
    data: bytes
    """The records, pickled."""


@dataclass(frozen=True, slots=True)
class Splitter:
    """Decides by an image's name, and for rows by their group, where it goes."""

    seed: int
    """Seed of the order and of the splits."""
    validation_fraction: float = 0.0
    """Fraction of the images for validation."""
    test_fraction: float = 0.0
    """Fraction of the images for testing."""
    class_names: tuple[str, ...] = ()
    """Names of the classes by number, for items that have only the name."""
    segment_bytes: int = 0
    """Images that lie within so many bytes of a tar follow one another, as rows of a group do; 0: each by its name."""

    def draw(self, name: str) -> float:
        """The number in [0, 1) that decides an image's split."""
        return derive_seed(self.seed, "split", _digest(name).hex()) / 2**63

    def split_of(self, name: str) -> str:
        """ "train", "validation" or "test"."""
        held_out = self.validation_fraction + self.test_fraction
        if held_out <= 0 or (draw := self.draw(name)) >= held_out:
            return "train"
        return "validation" if draw < self.validation_fraction else "test"

    def order_key(self, item: SourceItem) -> bytes:
        """What orders an image within its split; images of one name have the same."""
        if item.how == "row":
            return self._place_key(item.path, item.offset, item.size)
        if item.how == "range" and self.segment_bytes:
            return self._place_key(item.path, item.offset // self.segment_bytes, item.offset)
        return hashlib.sha256(str(self.seed).encode() + _digest(item.name)).digest()

    def _place_key(self, path: str, group: int, place: int) -> bytes:
        """A hash of the group, and the place in it."""
        text = f"{self.seed}/{path}/{group}".encode("utf-8", "surrogateescape")
        return hashlib.sha256(text).digest() + place.to_bytes(8, "big")


class Buckets:
    """The images of a source by split and bucket; only their places are in memory."""

    def __init__(self, splitter: Splitter, parts: Iterable[bytes]) -> None:
        """Sort parts of a source, see pipelines.prepare.sources.items.Parts, into buckets."""
        self.counts: Counter[tuple[str, int]] = Counter()
        self._spool = Spool()
        self._extents: dict[tuple[str, int], list[Extent]] = defaultdict(list)
        for blocks in map_in_tasks(partial(split_part, splitter), parts):
            for block in blocks:
                self.counts[block.split, block.bucket] += block.num_records
                self._extents[block.split, block.bucket].append(self._spool.append(block.data))

    def num_records(self, split: str) -> int:
        """Images in a split."""
        return sum(count for (name, _), count in self.counts.items() if name == split)

    def blocks(self, split: str, bucket: int) -> list[bytes]:
        """The data of a bucket's blocks."""
        return [self._spool.read(extent) for extent in self._extents.get((split, bucket), ())]

    def records(self, split: str, bucket: int) -> list[Record]:
        """A bucket's records, in order."""
        return sorted_records(self.blocks(split, bucket))

    def replace(self, split: str, bucket: int, records: list[Record]) -> None:
        """Put other records into a bucket."""
        self.counts[split, bucket] = len(records)
        self._extents[split, bucket] = [self._spool.append(pickle.dumps(records, pickle.HIGHEST_PROTOCOL))]

    def map_ordered(self, split: str, function: Callable[[tuple[int, list[bytes]]], list]) -> Iterator:
        """Call a function in tasks for consecutive buckets of a split; yield what each has returned, in order.

        Args:
            split: its name.
            function: takes how many images come before, and the blocks of the buckets.
        """
        return itertools.chain.from_iterable(map_in_tasks(function, self._loads(split)))

    def _loads(self, split: str) -> Iterator[tuple[int, list[bytes]]]:
        before = 0
        for group in self.groups(split):
            yield before, [block for bucket in group for block in self.blocks(split, bucket)]
            before += sum(self.counts[split, bucket] for bucket in group)

    def groups(self, split: str) -> Iterator[list[int]]:
        """Consecutive buckets of a split that a task sorts together."""
        group: list[int] = []
        for bucket in range(NUM_BUCKETS):
            if group and sum(self.counts[split, b] for b in (*group, bucket)) > _TASK_RECORDS:
                yield group
                group = []
            group.append(bucket)
        yield group


def split_part(splitter: Splitter, part: bytes) -> list[Block]:
    """Sort a part of a source into blocks: one task."""
    encode, number = strict_json.row_encoder(), numbering(splitter.class_names)
    found: dict[tuple[str, int], list[Record]] = defaultdict(list)
    for item in map(number, decode_items(part)):
        key = splitter.order_key(item)
        found[splitter.split_of(item.name), key[0]].append((key, encode(to_row(item)).encode()))
    return [
        Block(split, bucket, len(records), pickle.dumps(records, pickle.HIGHEST_PROTOCOL))
        for (split, bucket), records in found.items()
    ]


def sorted_records(blocks: Iterable[bytes]) -> list[Record]:
    """The records of some blocks in order; of those of one name, all but the first are marked as repeated."""
    records: list[Record] = [record for block in blocks for record in pickle.loads(block)]
    records.sort(key=itemgetter(0))
    if len({key for key, _ in records}) == len(records):
        return records
    ordered: list[Record] = []
    for key, group in itertools.groupby(records, key=itemgetter(0)):
        rows = [row for _, row in group]
        ordered += ((key, row) for row in (_marked(rows) if len(rows) > 1 else rows))
    return ordered


def decode_row(row: bytes) -> SourceItem:
    """The item of a record."""
    return from_row(strict_json.loads(row))


def _marked(rows: Sequence[bytes]) -> list[bytes]:
    encode = strict_json.row_encoder()
    return [encode(to_row(item)).encode() for item in sorted(in_order(map(decode_row, rows)))]


def _digest(name: str) -> bytes:
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()
