"""Reading prepared records: one split of a stage at random, or the first records of it at once."""

from dataclasses import dataclass

import numpy as np

from pipelines.ingest.shard_cache import ShardCache
from pipelines.settings.train import TrainConfig
from pipelines.shards.manifest import Manifest, ShardEntry, ShardIndex, load_index, load_manifest
from pipelines.shards.records import Record, read_record
from pipelines.storage.uris import is_remote, join, list_files, read_range
from sr3core.errors import DataError


class SplitReader:
    """Random access to the records of one split of a prepared stage, by the tar offsets in the shards' indices."""

    def __init__(self, data: str, stage: str, split: str, cache: ShardCache | None = None) -> None:
        self._cache = cache
        self.directory = join(data, stage)
        self.manifest: Manifest = load_manifest(self.directory)
        self.shards: tuple[ShardEntry, ...] = self.manifest.splits.get(split, ())
        self._indices: dict[int, ShardIndex] = {}

    def read(self, shard: int, index: int) -> Record:
        """Read one record; its members lie side by side in the tar, so one range read gets them all."""
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
        if shard not in self._indices:  # two threads may both load it, with the same result
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
    """Class index of each image, None if it is unlabelled."""


def load_split(data: str, stage: str, split: str, limit: int | None = None) -> SplitImages:
    """Read the first `limit` records of a split in shard order; None reads all.

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
    """Open the training split that a stage is to be trained on.

    Raises:
        DataError: it has not been prepared, is empty, or its image sizes or classes do not fit the model.
    """
    placement = config.placement
    cache = ShardCache(placement.cache_folder, placement.cache_bytes) if is_remote(data) else None
    reader = SplitReader(data, config.data_stage, "train", cache)
    spec = reader.manifest.stage
    if (spec.low_size, spec.high_size) != (config.model.low_size, config.model.high_size):
        raise DataError(
            f"{reader.directory} holds {spec.low_size} -> {spec.high_size}, stage {config.name} needs"
            f" {config.model.low_size} -> {config.model.high_size}"
        )
    if not reader.shards:
        raise DataError(f"{reader.directory} holds no training images: prepare more images")
    if config.model.unet.num_classes is not None:
        _check_classes(reader, config.name, config.model.unet.num_classes)
    return reader


def check_shards(reader: SplitReader) -> None:
    """Check that all shards exist and have the sizes that the manifest states, with one listing.

    Raises:
        DataError: shards are missing or of another size; names the first three.
    """
    found = dict(list_files(reader.directory))
    wrong = [shard.name for shard in reader.shards if found.get(shard.name) not in (shard.num_bytes, -1)]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise DataError(
            f"{reader.directory}: {', '.join(wrong[:3])}{more} missing or not of the size that manifest.json states;"
            " `sr3 verify` lists every problem, `sr3 prepare` with the same options writes missing shards again"
        )


def _check_classes(reader: SplitReader, stage: str, wanted: int) -> None:
    manifest = reader.manifest
    if manifest.num_classes == 0 or manifest.num_unlabelled > 0:
        having = f"{manifest.num_unlabelled} images without a class" if manifest.num_classes else "no classes"
        raise DataError(
            f"{reader.directory} holds {having}, stage {stage} needs {wanted}: prepare a source whose images are"
            " all labelled, such as ImageNet's or one of --layout imagefolder, or set unet.num_classes to None"
        )
    if manifest.num_classes > wanted:
        raise DataError(
            f"{reader.directory} holds classes up to {manifest.num_classes - 1}, stage {stage} takes 0 to"
            f" {wanted - 1}: set unet.num_classes to {manifest.num_classes}"
        )
