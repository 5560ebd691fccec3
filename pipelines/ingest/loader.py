"""Reading and decoding batches in processes: from places in shards to tensors."""

from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipelines.ingest.decoding import BatchLayout, DecodeJob, Job, MemoryLayout, ReadingSetup, Sample, SampleNotes
from pipelines.ingest.job_pool import BatchMemory, JobPool
from pipelines.ingest.pixel_batch import PixelBatch, classes_for
from pipelines.ingest.sample_order import Place
from pipelines.ingest.shard_cache import ShardCache
from pipelines.ingest.split_reader import SplitReader
from pipelines.settings.train import PlacementConfig, TrainConfig
from sr3core.images.crops import Corner, draw_corner
from sr3core.randomness import derive_seed

_JOBS_PER_PROCESS = 2  # a batch's: a process that is done early takes another
_FETCHING_PROCESSES = 2


def num_decoders(placement: PlacementConfig) -> int:
    """Processes that decode for a worker; with 0, threads of the worker itself do."""
    if placement.decoding_processes is not None:
        return placement.decoding_processes
    # On CPUs, steps take so long that two threads keep up, and computing takes every CPU.
    return max(0, int(placement.cpus_per_worker) - 1) if placement.use_gpu else 0


class Loader:
    """Loads a worker's batches, several at a time. A context manager, which ends its processes.

    Args:
        split: the training split.
        config: the stage's training.
        batch_size: samples in this worker's batches.
        cache: holds whole shards of a bucket.
        layout: of the memory of the batches; None for that of images.
    """

    def __init__(
        self,
        split: SplitReader,
        config: TrainConfig,
        batch_size: int,
        cache: ShardCache | None,
        layout: MemoryLayout | None = None,
    ) -> None:
        self._config, self._shards = config, tuple(zip(split.owners, split.shards, strict=True))
        model, placement = config.model, config.placement
        self._pixels = BatchLayout(placement.prefetch_batches, batch_size, model.unet.image_size, model.low_size)
        self._layout = layout or self._pixels
        location = None if cache is None else (placement.cache_folder, placement.cache_bytes)
        self._setup = ReadingSetup(split.directories, location, config.augmentation, self._layout, model.high_size)
        self._memory = BatchMemory(self._layout.num_bytes)
        self._stack = ExitStack()
        self._stack.callback(self._memory.close)
        self._num_decoders = num_decoders(placement)
        self._assembler = ThreadPoolExecutor(1, thread_name_prefix="assembling")
        self._stack.callback(self._assembler.shutdown, cancel_futures=True)
        self._decoding = self._stack.enter_context(JobPool(self._setup, self._num_decoders, self._memory))
        self._turns = config.augmentation.quarter_turns and model.crop_size is None  # crops have been turned
        # Copying to pinned memory here, in a thread, spares the training thread from it.
        pinned = placement.use_gpu and torch.cuda.is_available()
        self._copy = Tensor.pin_memory if pinned else Tensor.clone

    def __enter__(self) -> "Loader":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def pids(self) -> list[int]:
        """Ids of the processes that decode."""
        return self._decoding.pids

    def fetching_pool(self) -> JobPool:
        """Another pool, for downloads, which would keep decoding waiting; ends with this."""
        number = _FETCHING_PROCESSES if self._num_decoders else 0
        return self._stack.enter_context(JobPool(self._setup, number, self._memory))

    def load(self, places: list[Place], step: int) -> Future[Any]:
        """Begin to load a step's batch; at most placement.prefetch_batches successive steps may be under way."""
        slot = step % self._layout.num_slots
        size = -(-len(places) // (_JOBS_PER_PROCESS * max(self._num_decoders, 1)))
        parts = [
            self._decoding.submit(self._part(slot, first, places[first : first + size], step))
            for first in range(0, len(places), size)
        ]
        return self._assembler.submit(self._assemble, slot, places, step, parts)

    def _part(self, slot: int, first: int, places: list[Place], step: int) -> Job:
        samples = tuple(Sample(*self._shards[place.shard], place.index) for place in places)
        seeds = tuple(derive_seed(self._config.seed, "augmentation", step, place.position) for place in places)
        return self._job(slot, first, samples, seeds, self._corners(places, step))

    def _job(
        self,
        slot: int,
        first: int,
        samples: tuple[Sample, ...],
        seeds: tuple[int, ...],
        corners: tuple[Corner, ...],
    ) -> Job:
        return DecodeJob(slot, first, samples, seeds, corners)

    def _corners(self, places: list[Place], step: int) -> tuple[Corner, ...]:
        """Where the targets are cut; empty where the stage trains on whole images."""
        model, seed = self._config.model, self._config.seed
        if model.crop_size is None:
            return ()
        sizes = model.high_size, model.crop_size, model.scale.numerator
        return tuple(draw_corner(*sizes, seed, step, place.position) for place in places)

    def _assemble(self, slot: int, places: list[Place], step: int, parts: list[Future[list[SampleNotes]]]) -> Any:
        notes = [note for part in parts for note in part.result()]
        high, low = (self._own(pixels) for pixels in self._pixels.views(self._memory.array, slot))
        return PixelBatch(
            low=low if low.numel() else None,
            high=high,
            flips=torch.tensor([note.flip for note in notes]),
            turns=torch.tensor([note.turns for note in notes]) if self._turns else None,
            positions=tuple(place.position for place in places),
            keys=tuple(note.key for note in notes),
            classes=classes_for(self._config.model, [note.label for note in notes]),
            corners=self._corners(places, step),
        )

    def _own(self, pixels: np.ndarray) -> Tensor:
        return self._copy(torch.from_numpy(pixels))
