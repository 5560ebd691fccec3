"""Measuring the scale of residuals (sr3core/diffusion/residual.py) on the training samples.

That of what bicubic upsampling leaves is known when a run is created; that of what a regression leaves once it is
trained (pipelines/training/frozen_mean.py).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from pipelines.ingest.fields.arrays import FieldArrays, arrays_of
from pipelines.ingest.record_reader import RecordReader
from pipelines.ingest.split_reader import SplitReader
from pipelines.settings.train import RunConfig, TrainConfig
from pipelines.shards.manifest import ShardEntry
from pipelines.shards.records import Record
from sr3core.config import override
from sr3core.degradations.settings import DegradationConfig
from sr3core.errors import DataError
from sr3core.sizes import Size

if TYPE_CHECKING:  # torch takes seconds to load
    from torch import Tensor

T = TypeVar("T")
Start = Callable[["Tensor"], "Tensor"]
"""What a chain starts from, (1, C, H, W), of the upsampled input with its static maps, (1, C + K, H, W)."""

NUM_IMAGES = 1024
"""Images to measure on, evenly spread over the training split: the standard deviation is then good to about 1%."""
SMALLEST = 1e-4
"""A smaller standard deviation, an eightieth of a grey level, is rounding: there is nothing to learn."""
_NUM_THREADS = 16
"""Images read at once: from a bucket, the time is spent waiting."""


def with_residual_scales(config: RunConfig, data: str, known: RunConfig | None = None) -> RunConfig:
    """Fill in the residual_scale of every stage that draws what bicubic upsampling leaves and has none.

    Stages that draw what a regression leaves only take over a scale that is known.

    Args:
        config: the run.
        data: the prepared folder.
        known: the configuration of the same run from when it was created, whose scales are taken over.

    Raises:
        DataError: the training images are missing or damaged.
    """
    found = {stage.name: stage.model.objective.residual_scale for stage in known.stages} if known else {}
    return replace(config, stages=tuple(_filled(stage, data, found.get(stage.name, ())) for stage in config.stages))


def _filled(stage: TrainConfig, data: str, known: tuple[float, ...]) -> TrainConfig:
    objective = stage.model.objective
    if objective.residual == "none" or objective.residual_scale:
        return stage
    if not known and objective.residual == "upsampled":
        known = measure(data, stage.data_stage, stage.degradation)
    return override(stage, model__objective__residual_scale=known)


def measure(
    data: str,
    stage: str,
    degradation: DegradationConfig | None = None,
    num_images: int = NUM_IMAGES,
    start: Start | None = None,
    part: str = "train",
) -> tuple[float, ...]:
    """Standard deviation, a channel, of HR minus what a chain starts from, in the network's units.

    Args:
        data: the prepared folder.
        stage: the prepared stage, such as 16-64.
        degradation: what makes its inputs in training; None or of order 0 for the prepared ones.
        num_images: how many samples to read, evenly spread over the split, and so over its shards.
        start: what the chain starts from; None for the upsampled input.
        part: the split to measure on.

    Raises:
        DataError: there are no samples, they are damaged, or nothing is left of them.
    """
    split = SplitReader(data, stage, part)
    if not split.num_samples:
        raise DataError(f"{split.directory} holds no {part} images: prepare more images")
    numbers = np.unique(np.linspace(0, split.num_samples - 1, min(num_images, split.num_samples)).astype(int))
    if split.sample is not None:
        spec = split.require_fields()
        records = _read(split, numbers, RecordReader.read_field)
        scale = _spread(_field_residual(arrays_of(record, spec), start) for record in records)
    else:
        pairs = _read(split, numbers, RecordReader.read)
        scale = standard_deviation(((_input(r, degradation, split.spec.low_size), r.high) for r in pairs), start)
    if min(scale) < SMALLEST:
        origin = "their upsampled inputs" if start is None else "what the regression makes of them"
        raise DataError(
            f"{split.directory}: the images equal {origin}, so there is no residual to learn; use"
            " --model.objective.residual none, or prepare sharper images"
        )
    return scale


def _input(record: Record, degradation: DegradationConfig | None, low_size: Size | None) -> np.ndarray | None:
    if degradation is None or degradation.order == 0 or low_size is None:
        return record.low
    from pipelines.ingest.degraded_inputs import degrade_pixels  # torch takes seconds to load

    return degrade_pixels(record.high[None], [record.key], degradation, low_size)[0]


def _read(split: SplitReader, numbers: np.ndarray, read: Callable[[RecordReader, ShardEntry, int], T]) -> Iterator[T]:
    """The records of these numbers in the split, read a few at a time: no more of them are in memory."""
    readers = [RecordReader(directory) for directory in split.directories]
    starts = np.cumsum([0, *(shard.num_samples for shard in split.shards)])
    owners = np.searchsorted(starts, numbers, side="right") - 1
    shards = tuple(zip(split.owners, split.shards, strict=True))
    places = [(*shards[owner], int(number - starts[owner])) for number, owner in zip(numbers, owners, strict=True)]
    with ThreadPoolExecutor(_NUM_THREADS) as pool:
        for start in range(0, len(places), _NUM_THREADS):
            yield from pool.map(lambda place: read(readers[place[0]], *place[1:]), places[start : start + _NUM_THREADS])


def standard_deviation(
    pairs: Iterable[tuple[np.ndarray | None, np.ndarray]], start: Start | None = None
) -> tuple[float, ...]:
    """Standard deviation a channel, to four digits, of HR minus what a chain starts from.

    Args:
        pairs: low (h, w, C) and high (H, W, C), uint8.
        start: see measure.
    """
    from sr3core.images.pixels import to_float
    from sr3core.images.resize import upsample_bicubic

    def residual(low: np.ndarray | None, high: np.ndarray) -> np.ndarray:
        assert low is not None, "only super-resolution stages draw residuals"
        target = to_float(high[None])
        return _rest(target, upsample_bicubic(to_float(low[None]), high.shape[:2]), start)

    return _spread(residual(low, high) for low, high in pairs)


def _field_residual(sample: FieldArrays, start: Start | None) -> np.ndarray:
    """Target minus what a chain starts from, (C, H, W); 0 where the target is not known."""
    import torch

    from sr3core.images.resize import upsample_bicubic
    from sr3core.regression import with_static

    target = torch.from_numpy(sample.high)[None]
    static = None if sample.static is None else torch.from_numpy(sample.static)[None]
    x_up = with_static(upsample_bicubic(torch.from_numpy(sample.low)[None], sample.high.shape[-2:]), static)
    rest = _rest(target, x_up, start)
    return rest if sample.weights is None else np.where(sample.weights > 0, rest, 0)


def _rest(target: "Tensor", x_up: "Tensor", start: Start | None) -> np.ndarray:
    """(1, C, H, W) minus what a chain starts from, (C, H, W) float64."""
    begun = x_up if start is None else start(x_up)
    return (target - begun[:, : target.shape[1]]).double().numpy()[0]


def _spread(residuals: Iterable[np.ndarray]) -> tuple[float, ...]:
    """Standard deviation of residuals, (C, H, W) each, a channel, to four digits."""
    sums: list[Sequence[np.ndarray]] = [
        (rest.mean(axis=(1, 2)), np.square(rest).mean(axis=(1, 2))) for rest in residuals
    ]
    mean, square = np.mean(sums, axis=0)
    return tuple(float(f"{value:.4g}") for value in np.sqrt(np.maximum(square - mean**2, 0)))
