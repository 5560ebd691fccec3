"""What decoding processes do for fields: read records, convert and vary them, and write them into a batch's memory.

Imported by processes that do nothing else, so it needs neither torch nor Ray.
"""

from dataclasses import dataclass
from math import prod

import numpy as np

from pipelines.ingest.augmentation import draw_variation
from pipelines.ingest.decoding import Sample, SampleNotes, Workplace
from pipelines.ingest.fields.arrays import arrays_of, varied
from sr3core.errors import DataError
from sr3core.samples.spec import SampleSpec
from sr3core.sizes import Size, sides_of


@dataclass(frozen=True, slots=True)
class FieldLayout:
    """Memory for batches of fields in flight: so many slots, each of them all arrays of a kind, one kind by another."""

    num_slots: int
    """Batches in flight."""
    batch_size: int
    """Samples in a slot."""
    high_size: Size
    """Of the targets, cells."""
    low_size: Size
    """Of the inputs, cells."""
    spec: SampleSpec
    """The channels."""

    @property
    def shapes(self) -> dict[str, tuple[int, int, int]]:
        """Shape of each array of a sample."""
        spec, high, low = self.spec, sides_of(self.high_size), sides_of(self.low_size)
        made = len(spec.high)
        found = {"high": (made, *high), "low": (made + len(spec.further), *low)}
        found |= {"static": (len(spec.static), *high)} if spec.static else {}
        return found | ({"weights": (made, *high)} if spec.has_mask else {})

    @property
    def num_bytes(self) -> int:
        """Bytes of all slots."""
        return self.num_slots * self._slot_bytes

    @property
    def _slot_bytes(self) -> int:
        return 4 * self.batch_size * sum(map(prod, self.shapes.values()))

    def views(self, memory: np.ndarray, slot: int) -> dict[str, np.ndarray]:
        """A slot's arrays, (B, C, H, W) float32 each, in uint8 memory of num_bytes."""
        found, start = {}, slot * self._slot_bytes
        for name, shape in self.shapes.items():
            size = 4 * self.batch_size * prod(shape)
            found[name] = memory[start : start + size].view(np.float32).reshape(self.batch_size, *shape)
            start += size
        return found


@dataclass(frozen=True, slots=True)
class FieldJob:
    """A part of a batch of fields."""

    slot: int
    """Where in the memory the batch is."""
    first_row: int
    """Row of the first sample in the batch; the others follow."""
    samples: tuple[Sample, ...]
    """What to read."""
    seeds: tuple[int, ...]
    """Seed of each sample's variation."""

    def run(self, workplace: Workplace) -> list[SampleNotes]:
        """Write the samples to their rows.

        Raises:
            DataError: a record is damaged, or of another size than its manifest states.
            StorageError: a shard cannot be read.
        """
        layout = workplace.setup.layout
        assert isinstance(layout, FieldLayout), "the loader of fields makes one"
        views, notes = layout.views(workplace.memory, self.slot), []
        for row, (sample, seed) in enumerate(zip(self.samples, self.seeds, strict=True), self.first_row):
            record = workplace.readers[sample.part].read_field(sample.shard, sample.index)
            variation = draw_variation(workplace.setup.augmentation, seed)
            for name, array in arrays_of(record, layout.spec).parts.items():
                check_shape(record.key, name, array, layout.shapes)
                views[name][row] = varied(array, variation)
            notes.append(SampleNotes(record.key, None, variation.flip, variation.turns))
        return notes

    def __str__(self) -> str:
        return ", ".join(f"{sample.shard.name}[{sample.index}]" for sample in self.samples)


def check_shape(key: str, name: str, array: np.ndarray, shapes: dict[str, tuple[int, int, int]]) -> None:
    """Refuse a record of another shape than its manifest states.

    Raises:
        DataError: it is one.
    """
    if shapes.get(name) != array.shape:
        raise DataError(
            f"record {key}: {name} is {array.shape}, not {shapes.get(name)} as the manifest states; run `sr3 verify` on"
            " its folder"
        )
