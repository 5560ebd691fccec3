"""Randomness as a pure function of (seed, purpose, index): never of rank, batch split or global state."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # processes that only prepare data do without torch's 200 MB
    import torch
    from torch import Tensor


def derive_seed(seed: int, purpose: str, *index: int | str) -> int:
    """Derive an independent 63-bit seed for one purpose and index."""
    text = "/".join([str(seed), purpose, *map(str, index)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def keyed_generator(seed: int, purpose: str, *index: int | str, device: str | torch.device = "cpu") -> torch.Generator:
    """A torch generator that yields the same numbers for the same (seed, purpose, index) on any machine."""
    import torch

    return torch.Generator(device).manual_seed(derive_seed(seed, purpose, *index))


class ImageNoise:
    """Standard normal noise with one generator an image, so that an image does not depend on its batch.

    Args:
        seeds: one seed an image of the batch.
        device: where the noise is wanted. It is drawn on the CPU, so that a device's kind does not change it.
    """

    def __init__(self, seeds: Iterable[int], device: str | torch.device = "cpu") -> None:
        import torch

        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self._device = device

    def __call__(self, shape: Sequence[int]) -> Tensor:
        """Draw the next noise, (B, *shape[1:]) for shape = (B, C, H, W)."""
        import torch

        assert shape[0] == len(self._generators), "one seed an image"
        draws = [torch.randn(tuple(shape[1:]), generator=generator) for generator in self._generators]
        return torch.stack(draws).to(self._device)
