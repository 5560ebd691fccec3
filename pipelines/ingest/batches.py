"""Shards -> batches: which samples is order.py's pure function of (seed, step); here they are read and batched."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from pipelines.ingest.sample_order import Place, SampleOrder
from pipelines.ingest.shard_cache import ShardCache
from pipelines.settings.train import TrainConfig
from pipelines.shards.manifest import Manifest, ShardEntry, ShardIndex, load_index, load_manifest
from pipelines.shards.records import Record, read_record
from pipelines.storage.uris import is_remote, join, list_files, read_range
from sr3core.errors import DataError
from sr3core.hyperparameters import AugmentationConfig, ModelConfig
from sr3core.images.pixels import to_float
from sr3core.images.resize import blur
from sr3core.randomness import derive_seed
from sr3core.training import Batch


class SplitReader:
    """Random access to one split of one prepared stage, by the tar offsets in the shards' indices."""

    def __init__(self, data: str, stage: str, split: str, cache: ShardCache | None = None) -> None:
        self._cache = cache
        self.directory = join(data, stage)
        self.manifest: Manifest = load_manifest(self.directory)
        self.shards: tuple[ShardEntry, ...] = self.manifest.splits.get(split, ())
        self._indices: dict[int, ShardIndex] = {}

    def read(self, shard: int, index: int) -> Record:
        """Read one record with one ranged read of its neighbouring members."""
        entries = self._index(shard)
        members = entries.members[index]
        first = min(offset for offset, _ in members.values())
        last = max(offset + size for offset, size in members.values())
        uri = join(self.directory, self.shards[shard].name)
        if self._cache is not None:
            data = self._cache.read(uri, self.shards[shard], first, last - first)
        else:
            data = read_range(uri, first, last - first)
        parts = {name: data[offset - first : offset - first + size] for name, (offset, size) in members.items()}
        return read_record(entries.keys[index], parts)

    def _index(self, shard: int) -> ShardIndex:
        if shard not in self._indices:  # threads may load one twice, to the same end
            self._indices[shard] = load_index(self.directory, self.shards[shard].name)
        return self._indices[shard]


@dataclass(frozen=True, slots=True)
class SplitImages:
    """A part of a split, in memory."""

    keys: tuple[str, ...]
    low: np.ndarray
    """(N, h, w, 3) uint8; (0, 0, 0, 3) for a base model."""
    high: np.ndarray
    """(N, H, W, 3) uint8."""
    labels: tuple[int | None, ...] = ()
    """Class index of each, where labelled."""


def load_split(data: str, stage: str, split: str, limit: int | None = None) -> SplitImages:
    """Read the first `limit` records of a split, in shard order, or all of them.

    Raises:
        DataError: the stage has not been prepared, or its shards are damaged.
    """
    reader = SplitReader(data, stage, split)
    places = [(shard, index) for shard, entry in enumerate(reader.shards) for index in range(entry.num_samples)]
    records = [reader.read(*place) for place in places[:limit]]
    spec = reader.manifest.stage
    high = [record.high for record in records]
    low = [record.low for record in records if record.low is not None]
    return SplitImages(
        keys=tuple(record.key for record in records),
        low=np.stack(low) if low else np.zeros((0, spec.low_size or 0, spec.low_size or 0, 3), np.uint8),
        high=np.stack(high) if high else np.zeros((0, spec.high_size, spec.high_size, 3), np.uint8),
        labels=tuple(record.label for record in records),
    )


def open_training_split(data: str, config: TrainConfig) -> SplitReader:
    """Open the training split of a stage.

    Raises:
        DataError: it has not been prepared, is empty, or holds images of other sizes or classes.
    """
    placement = config.placement
    cache = ShardCache(placement.cache_folder, placement.cache_bytes) if is_remote(data) else None
    reader = SplitReader(data, config.data_stage, "train", cache)
    spec = reader.manifest.stage
    if (spec.low_size, spec.high_size) != (config.model.low_size, config.model.high_size):
        raise DataError(
            f"{reader.directory} holds {spec.low_size} -> {spec.high_size}, stage {config.name} wants"
            f" {config.model.low_size} -> {config.model.high_size}"
        )
    if not reader.shards:
        raise DataError(f"{reader.directory} holds no training images: prepare more")
    _check_classes(reader, config)
    return reader


def check_shards(reader: SplitReader) -> None:
    """Compare the sizes of the shards with the manifest, which costs one listing.

    Raises:
        DataError: shards are missing or of another size; names the first ones.
    """
    found = dict(list_files(reader.directory))
    wrong = [shard.name for shard in reader.shards if found.get(shard.name) not in (shard.num_bytes, -1)]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise DataError(
            f"{reader.directory}: {', '.join(wrong[:3])}{more} missing or not of the size that manifest.json tells;"
            " `sr3 verify` says what is wrong, `sr3 prepare` with the same options makes them again"
        )


def _check_classes(reader: SplitReader, config: TrainConfig) -> None:
    wanted, manifest = config.model.unet.num_classes, reader.manifest
    if wanted is None:
        return
    if manifest.num_classes == 0 or manifest.num_unlabelled > 0:
        having = f"{manifest.num_unlabelled} images without a class" if manifest.num_classes else "no classes"
        raise DataError(
            f"{reader.directory} holds {having}, stage {config.name} wants {wanted}: prepare a source whose images are"
            " all labelled, such as ImageNet's or one of --layout imagefolder, or set unet.num_classes to None"
        )
    if manifest.num_classes > wanted:
        raise DataError(
            f"{reader.directory} holds classes up to {manifest.num_classes - 1}, stage {config.name} takes 0 to"
            f" {wanted - 1}: set unet.num_classes to {manifest.num_classes}"
        )


def batches_from(reader: SplitReader, config: TrainConfig, step: int, rank: int, world_size: int) -> Iterator[Batch]:
    """This worker's batches from `step` on, for ever, read ahead by threads.

    What was consumed before `step` is not read.
    """
    order = SampleOrder(
        tuple(shard.num_samples for shard in reader.shards),
        config.batch_size,
        config.num_lanes,
        config.shuffle_window,
        config.seed,
    )
    order.lanes_of(rank, world_size)  # a wrong world size is told here, not in a thread
    with ThreadPoolExecutor(max_workers=2, thread_name_prefix="ingest") as pool:
        ahead: deque[Future[Batch]] = deque()
        try:
            while True:
                while len(ahead) < config.placement.prefetch_batches:
                    places = order.batch(step, rank, world_size)
                    ahead.append(pool.submit(_load_batch, reader, places, config, step))
                    step += 1
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()


def _load_batch(reader: SplitReader, places: list[Place], config: TrainConfig, step: int) -> Batch:
    records = [reader.read(place.shard, place.index) for place in places]
    pairs = [
        augment(record, config.augmentation, derive_seed(config.seed, "augmentation", step, place.position))
        for record, place in zip(records, places, strict=True)
    ]
    low = [low for low, _ in pairs if low is not None]
    return Batch(
        low=to_float(np.stack(low)) if low else None,
        high=to_float(np.stack([high for _, high in pairs])),
        positions=tuple(place.position for place in places),
        keys=tuple(record.key for record in records),
        classes=classes_for(config.model, [record.label for record in records]),
    )


def classes_for(model: ModelConfig, labels: Sequence[int | None]) -> torch.Tensor | None:
    """The class of each sample as the model takes it, (B,) int64; None for a model without classes."""
    return None if model.unet.num_classes is None else torch.tensor(labels, dtype=torch.int64)


def augment(record: Record, config: AugmentationConfig, seed: int) -> tuple[np.ndarray | None, np.ndarray]:
    """Vary one pair: (low, high) uint8, low being None for a base model; the same variation for the same seed.

    Blur (section 4.3) is applied to the low-resolution image alone, before it is upsampled.
    """
    low, high = record.low, record.high
    generator = np.random.Generator(np.random.Philox(seed))
    flips, blurs, sigma = generator.random(3)
    if config.flip and flips < 0.5:
        low, high = None if low is None else _mirrored(low), _mirrored(high)
    if low is not None and blurs < config.blur_probability:
        # Two decimals of sigma are enough, and let the kernels be cached.
        low = blur(low, max(round(sigma * config.blur_sigma_max, 2), 0.01))
    return low, high


def _mirrored(image: np.ndarray) -> np.ndarray:
    """Left to right, (H, W, C); by torch, as numpy takes 15 times as long to copy such a view."""
    return torch.from_numpy(np.require(image, requirements="W")).flip(1).numpy()
