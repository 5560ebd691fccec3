"""Loading batches of fields in processes: the same as of images, with other jobs and another memory."""

from concurrent.futures import Future

import torch

from pipelines.ingest.decoding import Sample, SampleNotes
from pipelines.ingest.fields.batch import FieldBatch
from pipelines.ingest.fields.jobs import FieldJob, FieldLayout
from pipelines.ingest.loader import Loader
from pipelines.ingest.sample_order import Place
from pipelines.ingest.shard_cache import ShardCache
from pipelines.ingest.split_reader import SplitReader
from pipelines.settings.train import TrainConfig
from sr3core.images.crops import Corner


class FieldLoader(Loader):
    """Loads a worker's batches of fields, several at a time. Its arguments are Loader's."""

    def __init__(self, split: SplitReader, config: TrainConfig, batch_size: int, cache: ShardCache | None) -> None:
        model, slots = config.model, config.placement.prefetch_batches
        self._fields = FieldLayout(slots, batch_size, model.high_size, model.low_size or 0, split.require_fields())
        super().__init__(split, config, batch_size, cache, self._fields)

    def _job(
        self,
        slot: int,
        first: int,
        samples: tuple[Sample, ...],
        seeds: tuple[int, ...],
        corners: tuple[Corner, ...],
    ) -> FieldJob:
        assert not corners, "check_channels refuses crops of fields"
        return FieldJob(slot, first, samples, seeds)

    def _assemble(
        self, slot: int, places: list[Place], step: int, parts: list[Future[list[SampleNotes]]]
    ) -> FieldBatch:
        keys = tuple(note.key for part in parts for note in part.result())
        views = self._fields.views(self._memory.array, slot)
        arrays = {name: self._copy(torch.from_numpy(view)) for name, view in views.items()}
        return FieldBatch(arrays, tuple(place.position for place in places), keys)
