"""A split of a prepared stage: its shards, and its first records at once."""

from dataclasses import dataclass
from itertools import islice

import numpy as np

from pipelines.ingest.record_reader import RecordReader
from pipelines.settings.train import TrainConfig
from pipelines.shards.manifest import Manifest, ShardEntry, load_manifest
from pipelines.storage.uris import join, list_files
from sr3core.errors import DataError


class SplitReader:
    """One split of a prepared stage."""

    def __init__(self, data: str, stage: str, split: str) -> None:
        self.directory = join(data, stage)
        self.manifest: Manifest = load_manifest(self.directory)
        self.shards: tuple[ShardEntry, ...] = self.manifest.splits.get(split, ())

    @property
    def num_samples(self) -> int:
        """Samples in the split."""
        return sum(shard.num_samples for shard in self.shards)


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


def load_split(
    data: str, stage: str, split: str, limit: int | None = None, rank: int = 0, world_size: int = 1
) -> SplitImages:
    """Read the first `limit` records of a split in shard order, None: all; of these, the rank-th of each world_size.

    Raises:
        DataError: the stage has not been prepared, or its shards are damaged.
    """
    split_reader = SplitReader(data, stage, split)
    reader, spec = RecordReader(split_reader.directory), split_reader.manifest.stage
    places = ((shard, index) for shard in split_reader.shards for index in range(shard.num_samples))
    mine = list(islice(places, rank, limit, world_size))
    keys, labels = [], []
    high = np.empty((len(mine), spec.high_size, spec.high_size, 3), np.uint8)
    low_size = spec.low_size or 0
    low = np.empty((len(mine) if low_size else 0, low_size, low_size, 3), np.uint8)
    for number, (shard, index) in enumerate(mine):
        record = reader.read(shard, index)
        high[number] = record.high
        if record.low is not None:
            low[number] = record.low
        keys.append(record.key)
        labels.append(record.label)
    return SplitImages(tuple(keys), low, high, tuple(labels))


def open_training_split(data: str, config: TrainConfig) -> SplitReader:
    """Open the training split that a stage is to be trained on.

    Raises:
        DataError: it has not been prepared, is empty, or its image sizes or classes do not fit the model.
    """
    reader = SplitReader(data, config.data_stage, "train")
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
