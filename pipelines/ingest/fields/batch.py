"""Batches of fields as training and validation take them."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from sr3core.training import Batch
from sr3core.transfer import send


@dataclass(frozen=True, slots=True)
class FieldBatch:
    """One worker's share of a global batch of fields, on the host: standardised, flipped and turned."""

    arrays: Mapping[str, Tensor]
    """high and low, and perhaps static and weights, (B, C, H, W) float32 each."""
    positions: tuple[int, ...]
    """Each sample's position in the global batch."""
    keys: tuple[str, ...]
    """Each sample's key in its shard."""

    def to(self, device: str | torch.device) -> Batch:
        """The batch on a device, without waiting for it."""
        there = {name: send(array, device) for name, array in self.arrays.items()}
        return Batch(
            low=there["low"],
            high=there["high"],
            positions=self.positions,
            keys=self.keys,
            static=there.get("static"),
            weights=there.get("weights"),
        )
