"""Given pairs while a shard is written: what is read of each image, and whether its two pictures fit together."""

from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from pipelines.images.rejects import DecodeError, RejectReason
from pipelines.prepare.sources.items import How, SourceItem
from pipelines.prepare.sources.listing import read_item
from pipelines.settings.prepare import PrepareConfig
from sr3core.images.alignment import MIN_CERTAINTY, MIN_CORRELATION, find_shift
from sr3core.images.resize import resize_area

_JUDGED = 512
"""Largest side, in low-resolution pixels, of the central part by which a pair is judged."""
_SMALL_PICTURES = 8.0
"""A shift is known to within about 8 / side pixels: the fewer there are, the less can be told."""


class Reading(NamedTuple):
    """An image file to read."""

    item: SourceItem
    """Where it is in its source."""
    source: str
    """Its source."""
    column: str
    """Its column in parquet files; "" for the only one of images."""

    @property
    def how(self) -> How:
        """How it is read."""
        return self.item.how

    def read(self) -> bytes:
        """Its bytes; raises what read_item raises."""
        return read_item(self.source, self.item, self.column)


def readings_of(config: PrepareConfig, item: SourceItem) -> Iterator[Reading]:
    """What is read of an image: it, then its given low-resolution image if it has one."""
    yield Reading(item, config.source, config.image_column)
    if item.low is not None and config.low is not None:
        yield Reading(item.low, config.low, config.low_column)
    elif config.low_column and config.low is None:
        yield Reading(item, config.source, config.low_column)


def check_pair(config: PrepareConfig, high: np.ndarray, low: np.ndarray) -> dict[str, list[float]]:
    """What a record notes of its pair: shift, [down, right] in low-resolution pixels, unless it is too flat to tell.

    Args:
        config: the scale of its stages, and the largest shift.
        high: uint8 (H, W, 3).
        low: uint8 (h, w, 3), the given low-resolution image.

    Raises:
        DecodeError: they are not in the stages' ratio, not aligned, or do not show the same.
    """
    scale = next(stage.scale for stage in config.stage_specs if stage.scale is not None)
    if any(side != scale * small for side, small in zip(high.shape[:2], low.shape[:2], strict=True)):
        wanted = f"{float(scale):g} times the {_size(low)} of its low-resolution image"
        detail = f"{_size(high)} is not {wanted}, as the stages are"
        raise DecodeError(RejectReason.RATIO, detail)
    part, small = _centre(high, low, scale)
    found = find_shift(resize_area(part, small.shape[:2]), small)
    if found is None:
        return {}
    if found.certainty < MIN_CERTAINTY:
        if found.correlation < MIN_CORRELATION:
            detail = f"its low-resolution image shows something else: their correlation is {found.correlation:.2f}"
            raise DecodeError(RejectReason.SHIFTED, detail)
        return {}
    allowed = config.max_shift + _SMALL_PICTURES / min(small.shape[:2])
    if max(abs(found.down), abs(found.right)) > allowed:
        raise DecodeError(
            RejectReason.SHIFTED,
            f"its low-resolution image is shifted by {found.down:.2f} pixels down and {found.right:.2f} to the right;"
            f" {allowed:.2f} are allowed (--max-shift)",
        )
    return {"shift": [round(found.down, 3), round(found.right, 3)]}


def _centre(high: np.ndarray, low: np.ndarray, scale: Fraction) -> tuple[np.ndarray, np.ndarray]:
    """The same central part of both pictures, of whole pixels."""
    whole = scale.denominator
    starts = [max(0, (side - _JUDGED) // 2 // whole * whole) for side in low.shape[:2]]
    window = tuple(slice(start, start + _JUDGED // whole * whole) for start in starts)
    large = tuple(slice(int(part.start * scale), int(part.stop * scale)) for part in window)
    return high[large], low[window]


def _size(image: np.ndarray) -> str:
    return f"{image.shape[1]}x{image.shape[0]}"
