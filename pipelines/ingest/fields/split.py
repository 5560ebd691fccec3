"""A part of a split of fields in memory, for validation, sample grids and evaluation."""

from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch

from pipelines.ingest.fields.arrays import arrays_of
from pipelines.ingest.fields.batch import FieldBatch
from pipelines.ingest.fields.jobs import FieldLayout, check_shape
from pipelines.ingest.record_reader import RecordReader
from pipelines.ingest.split_reader import SplitReader
from pipelines.shards.fields import FieldRecord
from sr3core.samples.spec import SampleSpec


@dataclass(frozen=True, slots=True)
class FieldSet:
    """Samples of a split."""

    spec: SampleSpec
    records: tuple[FieldRecord, ...]
    """In physical units."""
    arrays: dict[str, np.ndarray]
    """The same as the network takes them: high and low, perhaps static and weights, (N, C, H, W) float32."""
    parts: tuple[int, ...]
    """Number of the preparation that each sample is from."""

    @property
    def keys(self) -> tuple[str, ...]:
        """The samples' keys."""
        return tuple(record.key for record in self.records)

    def batch(self, part: slice, positions: tuple[int, ...]) -> FieldBatch:
        """Some of the samples as a batch."""
        tensors = {name: torch.from_numpy(array[part]) for name, array in self.arrays.items()}
        return FieldBatch(tensors, positions, self.keys[part])


def load_fields(
    data: str, stage: str, split: str, limit: int | None = None, rank: int = 0, world_size: int = 1
) -> FieldSet:
    """Read the first `limit` samples of a split, None: all; of these, the rank-th of each world_size.

    Raises:
        DataError: the stage has not been prepared, or its shards are damaged or hold images.
    """
    reader = SplitReader(data, stage, split)
    spec = reader.require_fields()
    readers = [RecordReader(directory) for directory in reader.directories]
    mine = list(islice(reader.places(), rank, limit, world_size))
    records = tuple(readers[part].read_field(shard, index) for part, shard, index in mine)
    layout = FieldLayout(1, max(len(mine), 1), reader.spec.high_size, reader.spec.low_size or 0, spec)
    arrays = {name: np.empty((len(mine), *shape), np.float32) for name, shape in layout.shapes.items()}
    for row, record in enumerate(records):
        for name, array in arrays_of(record, spec).parts.items():
            check_shape(record.key, name, array, layout.shapes)
            arrays[name][row] = array
    return FieldSet(spec, records, arrays, tuple(part for part, _, _ in mine))
