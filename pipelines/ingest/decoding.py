"""What decoding processes do: read records, vary them, and write their pixels into the memory of a batch.

Imported by processes that do nothing else, so it needs neither torch nor Ray.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from pipelines.ingest.augmentation import cut_high, draw_variation, vary_low
from pipelines.ingest.compact_index import MAX_INDEX_BYTES
from pipelines.ingest.record_reader import RecordReader
from pipelines.ingest.shard_cache import ShardCache
from pipelines.shards.manifest import ShardEntry
from pipelines.shards.records import Record
from pipelines.storage.uris import join
from sr3core.errors import DataError
from sr3core.hyperparameters import AugmentationConfig
from sr3core.images.crops import Corner
from sr3core.sizes import Size, num_pixels, sides_of


@dataclass(frozen=True, slots=True)
class BatchLayout:
    """Memory for batches in flight: so many slots, each of them all targets, then all low-resolution images."""

    num_slots: int
    """Batches in flight."""
    batch_size: int
    """Images of each kind in a slot."""
    high_size: Size
    """Of the targets, which may be crops of the stored ones, pixels."""
    low_size: Size | None
    """Of the low-resolution images, pixels; None for a base model."""

    @property
    def num_bytes(self) -> int:
        """Bytes of all slots."""
        return self.num_slots * self._slot_bytes

    @property
    def _high_bytes(self) -> int:
        return self.batch_size * 3 * num_pixels(self.high_size)

    @property
    def _slot_bytes(self) -> int:
        return self._high_bytes + self.batch_size * 3 * num_pixels(self.low_size)

    def views(self, memory: np.ndarray, slot: int) -> tuple[np.ndarray, np.ndarray]:
        """A slot's targets (B, H, W, 3) and low-resolution images (B, h, w, 3) in uint8 memory of num_bytes."""
        start = slot * self._slot_bytes
        middle, end = start + self._high_bytes, start + self._slot_bytes
        shapes = ((self.batch_size, *sides_of(size or 0), 3) for size in (self.high_size, self.low_size))
        high, low = (
            part.reshape(shape) for part, shape in zip((memory[start:middle], memory[middle:end]), shapes, strict=True)
        )
        return high, low


class MemoryLayout(Protocol):
    """How the memory of batches in flight is divided."""

    @property
    def num_slots(self) -> int: ...

    @property
    def num_bytes(self) -> int: ...

    def views(self, memory: np.ndarray, slot: int) -> Any: ...


@dataclass(frozen=True, slots=True)
class ReadingSetup:
    """What a process needs to know in order to read."""

    directories: tuple[str, ...]
    """Folder of the stage in each preparation."""
    cache: tuple[str, int] | None
    """Folder and bound of the cache of shards; None if records are read from the directory."""
    augmentation: AugmentationConfig
    """Random variations."""
    layout: MemoryLayout
    """Where the pixels, or the values of fields, go."""
    high_size: Size
    """Of the stored targets, pixels."""

    def __str__(self) -> str:
        return " and ".join(self.directories)


class Workplace:
    """What a process reads with: a reader for each preparation, and the memory of the batches."""

    def __init__(self, setup: ReadingSetup, memory: np.ndarray) -> None:
        self.setup, self.memory = setup, memory
        self.cache = None if setup.cache is None else ShardCache(*setup.cache)
        share = MAX_INDEX_BYTES // len(setup.directories)
        self.readers = tuple(RecordReader(directory, self.cache, share) for directory in setup.directories)


class Sample(NamedTuple):
    """A record to read."""

    part: int
    """Number of the preparation."""
    shard: ShardEntry
    index: int
    """Number in the shard."""


class Job(Protocol):
    """Work for one process; a pure function of its fields, so that it can be repeated if the process dies."""

    def run(self, workplace: Workplace) -> object: ...


@dataclass(frozen=True, slots=True)
class SampleNotes:
    """What is known of a decoded sample besides its pixels."""

    key: str
    """Its key in the shard."""
    label: int | None
    """Its class, None if it has none."""
    flip: bool
    """Whether the target is to be flipped; a crop has been, as the low-resolution image has."""
    turns: int
    """Quarter turns of the target that are to follow, likewise."""


@dataclass(frozen=True, slots=True)
class DecodeJob:
    """A part of a batch."""

    slot: int
    """Where in the memory the batch is."""
    first_row: int
    """Row of the first sample in the batch; the others follow."""
    samples: tuple[Sample, ...]
    """What to read."""
    seeds: tuple[int, ...]
    """Seed of each sample's variation."""
    corners: tuple[Corner, ...] = ()
    """Where each target is cut, after it is flipped and turned; empty for whole ones."""

    def run(self, workplace: Workplace) -> list[SampleNotes]:
        """Decode the samples to their rows.

        Raises:
            DataError: a record is damaged, or of another size than its manifest states.
            StorageError: a shard cannot be read.
        """
        setup, layout = workplace.setup, workplace.setup.layout
        assert isinstance(layout, BatchLayout), "the loader of images makes one"
        high, low = layout.views(workplace.memory, self.slot)
        notes = []
        for number, (sample, seed) in enumerate(zip(self.samples, self.seeds, strict=True)):
            row = self.first_row + number
            record = workplace.readers[sample.part].read(sample.shard, sample.index)
            variation = draw_variation(setup.augmentation, seed)
            _check_sizes(record, setup.high_size, layout.low_size)
            if record.low is not None and low.size:
                low[row] = vary_low(record.low, variation)
            if self.corners:
                high[row] = cut_high(record.high, variation, self.corners[number], high.shape[1:3])
                notes.append(SampleNotes(record.key, record.label, flip=False, turns=0))
            else:
                high[row] = record.high
                notes.append(SampleNotes(record.key, record.label, variation.flip, variation.turns))
        return notes

    def __str__(self) -> str:
        return ", ".join(f"{sample.shard.name}[{sample.index}]" for sample in self.samples)


def _check_sizes(record: Record, high_size: Size, low_size: Size | None) -> None:
    found = record.high.shape, None if record.low is None or not low_size else record.low.shape
    wanted = tuple((*sides_of(size), 3) if size else None for size in (high_size, low_size))
    if found != wanted:
        raise DataError(
            f"record {record.key}: its images are {found[0]} and {found[1]}, not {wanted[0]} and {wanted[1]} as the"
            " manifest states; run `sr3 verify` on its folder"
        )


@dataclass(frozen=True, slots=True)
class FetchJob:
    """Have a shard in the cache before its records are wanted."""

    shard: ShardEntry
    part: int = 0
    """Number of the preparation."""

    def run(self, workplace: Workplace) -> None:
        """Download the shard, unless it is there or another process is downloading it.

        Raises:
            DataError, StorageError: see `ShardCache.fetch`.
        """
        assert workplace.cache is not None, "without a cache nothing is fetched"
        workplace.cache.fetch(join(workplace.setup.directories[self.part], self.shard.name), self.shard)

    def __str__(self) -> str:
        return self.shard.name
