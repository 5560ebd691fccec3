"""One worker's share of a global batch, as the training step takes it."""

from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from sr3core.images.crops import Corner
from sr3core.transfer import send


@dataclass(frozen=True, slots=True)
class Batch:
    """One worker's share of a global batch."""

    low: Tensor | None
    """x: low-resolution images, (B, 3, h, w) float32 in [-1, 1]; None for a base model."""
    high: Tensor
    """y_0: targets, (B, 3, H, W) float32 in [-1, 1]."""
    positions: tuple[int, ...]
    """Each sample's position in the global batch; with seed and step it determines the sample's noise."""
    keys: tuple[str, ...] = ()
    """Each sample's key in its shard."""
    classes: Tensor | None = None
    """Class of each sample, (B,) int64; None if the model has no classes."""
    static: Tensor | None = None
    """Static maps of each sample, (B, K, H, W) float32: the last of the model's extra channels; None without any."""
    weights: Tensor | None = None
    """Weight of each value in the loss, (B, 1 or C, H, W) float32 at least 0, such as 0 where no truth is known; None
    for 1 everywhere."""
    corners: tuple[Corner, ...] = ()
    """Where each target was cut from its sample, with its static maps and weights; low is whole nevertheless. Empty if
    targets are whole."""

    def to(self, device: str | torch.device) -> "Batch":
        """The same batch with its tensors on device."""

        def move(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else send(tensor, device)

        moved = {name: move(getattr(self, name)) for name in ("low", "classes", "static", "weights")}
        return replace(self, high=send(self.high, device), **moved)

    def split(self, parts: int) -> list["Batch"]:
        """Split into `parts` micro-batches of nearly equal size, for gradient accumulation."""
        bounds = [part * len(self.positions) // parts for part in range(parts + 1)]
        return [self._part(slice(start, stop)) for start, stop in pairwise(bounds)]

    def _part(self, part: slice) -> "Batch":
        def cut(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor[part]

        return Batch(
            cut(self.low),
            self.high[part],
            self.positions[part],
            self.keys[part],
            cut(self.classes),
            cut(self.static),
            cut(self.weights),
            self.corners[part],
        )
