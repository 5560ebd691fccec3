"""A split of a prepared stage, or of the same stage of several preparations: its shards, its first records at once."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count, cycle, islice

import numpy as np

from pipelines.ingest.channels import check_channels
from pipelines.ingest.compact_index import IndexCache
from pipelines.ingest.mixed_order import pattern_of
from pipelines.ingest.record_reader import RecordReader
from pipelines.settings.stages import StageSpec
from pipelines.settings.train import TrainConfig
from pipelines.shards.manifest import Manifest, ShardEntry, load_index
from pipelines.shards.mixtures import PreparedStage, check_classes_agree, load_stages
from pipelines.storage.uris import list_files
from sr3core.errors import DataError
from sr3core.samples.spec import SampleSpec
from sr3core.sizes import describe, sides_of


class SplitReader:
    """One split of a stage, in all preparations that a run's data are."""

    def __init__(self, data: str, stage: str, split: str) -> None:
        self.stages: tuple[PreparedStage, ...] = load_stages(data, stage)
        self.shards_of: tuple[tuple[ShardEntry, ...], ...] = tuple(
            part.manifest.splits.get(split, ()) for part in self.stages
        )

    @property
    def shards(self) -> tuple[ShardEntry, ...]:
        """Shards of all preparations, those of the first one first."""
        return tuple(shard for shards in self.shards_of for shard in shards)

    @property
    def owners(self) -> tuple[int, ...]:
        """Number of the preparation that each shard is in."""
        return tuple(part for part, shards in enumerate(self.shards_of) for _ in shards)

    @property
    def directories(self) -> tuple[str, ...]:
        """Folder of the stage in each preparation."""
        return tuple(part.directory for part in self.stages)

    @property
    def directory(self) -> str:
        """The folders, for a message."""
        return " and ".join(self.directories)

    @property
    def spec(self) -> StageSpec:
        """What the stage is."""
        return self.stages[0].manifest.stage

    @property
    def sample(self) -> SampleSpec | None:
        """The channels of fields; None for images."""
        return self.stages[0].manifest.sample

    def require_fields(self) -> SampleSpec:
        """The channels of fields.

        Raises:
            DataError: the data are images, or preparations of different statistics.
        """
        found = [part.manifest.sample for part in self.stages]
        if found[0] is None:
            raise DataError(f"{self.directory} holds images, and fields are needed")
        if any(other != found[0] for other in found):
            raise DataError(
                f"{self.directory}: the channels of these preparations, or their statistics, differ; prepare the stores"
                " together"
            )
        return found[0]

    @property
    def num_samples(self) -> int:
        """Samples in the split."""
        return sum(shard.num_samples for shard in self.shards)

    def places(self) -> Iterator[tuple[int, ShardEntry, int]]:
        """Preparation, shard and number of every sample.

        Preparations alternate by their shares, each in the order of its shards, until they have no more. Of native
        crops, the first one of every image comes before the second one of any: the first N show as many images as can
        be.
        """
        parts = [
            _spread(part.directory, shards) if _num_crops(part.manifest) > 1 else _places(shards)
            for part, shards in zip(self.stages, self.shards_of, strict=True)
        ]
        pattern = pattern_of([part.share for part in self.stages]).tolist()
        left = set(range(len(parts)))
        for part in cycle(pattern):
            if part in left:
                place = next(parts[part], None)
                if place is not None:
                    yield part, *place
                    continue
                left.discard(part)
            if not left:
                return


def _places(shards: tuple[ShardEntry, ...]) -> Iterator[tuple[ShardEntry, int]]:
    return ((shard, index) for shard in shards for index in range(shard.num_samples))


def _num_crops(manifest: Manifest) -> int:
    return manifest.provenance.get("config", {}).get("crops_per_image", 1)


def _spread(directory: str, shards: tuple[ShardEntry, ...]) -> Iterator[tuple[ShardEntry, int]]:
    """Every image's first crop, then every image's second one, and so on; an image is in one shard."""
    numbers: dict[str, np.ndarray] = {}
    for number in count():
        found = False
        for shard in shards:
            if shard.name not in numbers:
                numbers[shard.name] = _crop_numbers(load_index(directory, shard.name).names)
            for index in np.flatnonzero(numbers[shard.name] == number).tolist():
                found = True
                yield shard, index
        if not found:
            return


def _crop_numbers(names: Sequence[str]) -> np.ndarray:
    """How many samples before it are of the same image, of each sample; (N,) uint16."""
    before: Counter[str] = Counter()
    numbers = np.empty(len(names), np.uint16)
    for index, name in enumerate(names):
        numbers[index] = before[name]
        before[name] += 1
    return numbers


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
    parts: tuple[int, ...] = ()
    """Number of the preparation that each image is from."""


@dataclass(frozen=True, slots=True)
class SplitPlaces:
    """Where a part of a split is; its images are read when they are wanted, some at a time."""

    directories: tuple[str, ...]
    """Folder of the stage in each preparation."""
    spec: StageSpec
    """What the stage is."""
    keys: tuple[str, ...]
    """Key of each image; empty if nobody asks for them before the images are read."""
    places: tuple[tuple[int, ShardEntry, int], ...]
    """Preparation, shard and number in it of each image."""

    def part(self, chosen: slice) -> "SplitPlaces":
        """Some of the images."""
        return replace(self, keys=self.keys[chosen], places=self.places[chosen])

    def load(self, reader_of: Callable[[str], RecordReader] = RecordReader) -> SplitImages:
        """Read the images.

        Args:
            reader_of: opens a folder; who loads many parts keeps what it has opened, with the indices.

        Raises:
            DataError: shards are damaged.
        """
        readers = [reader_of(directory) for directory in self.directories]
        count, low_size = len(self.places), self.spec.low_size
        high = np.empty((count, *sides_of(self.spec.high_size), 3), np.uint8)
        low = np.empty((count if low_size else 0, *sides_of(low_size or 0), 3), np.uint8)
        keys, labels = [], []
        for number, (part, shard, index) in enumerate(self.places):
            record = readers[part].read(shard, index)
            high[number] = record.high
            if record.low is not None:
                low[number] = record.low
            keys.append(record.key)
            labels.append(record.label)
        return SplitImages(tuple(keys), low, high, tuple(labels), tuple(part for part, _, _ in self.places))


def load_split(
    data: str, stage: str, split: str, limit: int | None = None, rank: int = 0, world_size: int = 1
) -> SplitImages:
    """Read the first `limit` records of a split, None: all; of these, the rank-th of each world_size.

    They come in the order of the shards; see SplitReader.places for crops and for several preparations.

    Raises:
        DataError: the stage has not been prepared, or its shards are damaged.
    """
    reader = SplitReader(data, stage, split)
    mine = islice(reader.places(), rank, limit, world_size)
    return SplitPlaces(reader.directories, reader.spec, (), tuple(mine)).load()


def find_split(data: str, stage: str, split: str, limit: int | None = None) -> SplitPlaces:
    """Where the records are that load_split reads.

    Raises:
        DataError: the stage has not been prepared, or its indices are damaged.
    """
    reader = SplitReader(data, stage, split)
    places = tuple(islice(reader.places(), limit))
    indices = [IndexCache(directory) for directory in reader.directories]
    keys = tuple(indices[part][shard.name][index].key for part, shard, index in places)
    return SplitPlaces(reader.directories, reader.spec, keys, places)


def open_training_split(data: str, config: TrainConfig) -> SplitReader:
    """Open the training split that a stage is to be trained on.

    Raises:
        DataError: it has not been prepared, is empty, or its image sizes or classes do not fit the model.
    """
    reader = SplitReader(data, config.data_stage, "train")
    spec = reader.spec
    if (spec.low_size, spec.high_size) != (config.model.low_size, config.model.high_size):
        raise DataError(
            f"{reader.directory} holds {describe(spec.low_size)} -> {describe(spec.high_size)}, stage {config.name}"
            f" needs {describe(config.model.low_size)} -> {describe(config.model.high_size)}"
        )
    check_channels(reader.directory, None if reader.sample is None else reader.require_fields(), config)
    for directory, shards in zip(reader.directories, reader.shards_of, strict=True):
        if not shards:
            raise DataError(f"{directory} holds no training images: prepare more images")
    if config.model.unet.num_classes is not None:
        for part in reader.stages:
            _check_classes(part, config.name, config.model.unet.num_classes)
        check_classes_agree(reader.stages, config.name)
    return reader


def check_shards(reader: SplitReader) -> None:
    """Check that all shards exist and have the sizes that the manifests state, with one listing of each folder.

    Raises:
        DataError: shards are missing or of another size; names the first three.
    """
    for directory, shards in zip(reader.directories, reader.shards_of, strict=True):
        _check_shards(directory, shards)


def _check_shards(directory: str, shards: tuple[ShardEntry, ...]) -> None:
    found = dict(list_files(directory))
    wrong = [shard.name for shard in shards if found.get(shard.name) not in (shard.num_bytes, -1)]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise DataError(
            f"{directory}: {', '.join(wrong[:3])}{more} missing or not of the size that manifest.json states;"
            " `sr3 verify` lists every problem, `sr3 prepare` with the same options writes missing shards again"
        )


def _check_classes(part: PreparedStage, stage: str, wanted: int) -> None:
    manifest = part.manifest
    if manifest.num_classes == 0 or manifest.num_unlabelled > 0:
        having = f"{manifest.num_unlabelled} images without a class" if manifest.num_classes else "no classes"
        raise DataError(
            f"{part.directory} holds {having}, stage {stage} needs {wanted}: prepare a source whose images are"
            " all labelled, such as ImageNet's or one of --layout imagefolder, or set unet.num_classes to None"
        )
    if manifest.num_classes > wanted:
        raise DataError(
            f"{part.directory} holds classes up to {manifest.num_classes - 1}, stage {stage} takes 0 to"
            f" {wanted - 1}: set unet.num_classes to {manifest.num_classes}"
        )
