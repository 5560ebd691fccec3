"""A training batch as ingest makes it: bytes, which become floats on the device."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from pipelines.ingest.augmentation import mirror, turn
from sr3core.batch import Batch
from sr3core.hyperparameters import ModelConfig
from sr3core.images.crops import Corner
from sr3core.images.pixels import to_float
from sr3core.transfer import send


class HostBatch(Protocol):
    """One worker's share of a global batch, as ingest makes it."""

    @property
    def keys(self) -> tuple[str, ...]: ...

    @property
    def positions(self) -> tuple[int, ...]: ...

    def to(self, device: str | torch.device) -> Batch: ...


@dataclass(frozen=True, slots=True)
class PixelBatch:
    """One worker's share of a global batch, a quarter of the bytes that it has as floats."""

    low: Tensor | None
    """Low-resolution images, flipped, turned and blurred, (B, h, w, 3) uint8; None for a base model."""
    high: Tensor
    """Targets before they are flipped and turned, or crops of them afterwards, (B, H, W, 3) uint8."""
    flips: Tensor
    """Which targets to flip, (B,) bool."""
    turns: Tensor | None
    """Quarter turns of each target, (B,) int64; None if none is turned."""
    positions: tuple[int, ...]
    """Each sample's position in the global batch."""
    keys: tuple[str, ...]
    """Each sample's key in its shard."""
    classes: Tensor | None
    """Class of each sample, (B,) int64; None if the model has no classes."""
    corners: tuple[Corner, ...] = ()
    """Where each target was cut; empty for whole ones."""

    def to(self, device: str | torch.device) -> Batch:
        """Send the bytes to a device without waiting for it, and flip, turn and convert them there."""
        high = mirror(send(self.high, device), send(self.flips, device))
        if self.turns is not None:
            high = turn(high, send(self.turns, device))
        return Batch(
            low=None if self.low is None else to_float(send(self.low, device)),
            high=to_float(high),
            positions=self.positions,
            keys=self.keys,
            classes=None if self.classes is None else send(self.classes, device),
            corners=self.corners,
        )


def classes_for(model: ModelConfig, labels: Sequence[int | None]) -> Tensor | None:
    """Class indices as the model takes them, (B,) int64; None for a model without classes."""
    return None if model.unet.num_classes is None else torch.tensor(labels, dtype=torch.int64)
