"""Random numbers as a pure function of (seed, purpose, index), independent of rank, batch split and global state."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from itertools import count
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # processes that only prepare data avoid torch's 200 MB
    import torch
    from torch import Tensor


def derive_seed(seed: int, purpose: str, *index: int | str) -> int:
    """Derive an independent 63-bit seed for one purpose and index."""
    text = "/".join([str(seed), purpose, *map(str, index)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def keyed_generator(seed: int, purpose: str, *index: int | str, device: str | torch.device = "cpu") -> torch.Generator:
    """Create a torch generator that yields the same numbers for the same (seed, purpose, index) on any machine."""
    import torch

    return torch.Generator(device).manual_seed(derive_seed(seed, purpose, *index))


class ImageNoise:
    """Standard normal noise with one generator per image, so that an image does not depend on its batch.

    Args:
        seeds: one seed per image of the batch.
        device: the device of the noise. It is drawn on the CPU, so that it is the same on every kind of device.
    """

    def __init__(self, seeds: Iterable[int], device: str | torch.device = "cpu") -> None:
        import torch

        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self._device = device

    def __call__(self, shape: Sequence[int]) -> Tensor:
        """Draw the next noise, of shape (B, C, H, W)."""
        import torch

        from sr3core.transfer import send

        assert shape[0] == len(self._generators), "one seed per image"
        draws = [torch.randn(tuple(shape[1:]), generator=generator) for generator in self._generators]
        return send(torch.stack(draws), self._device)


NOISE_BLOCK = 64
"""Side of the blocks in which a noise field is drawn, pixels; changing it changes the noise."""


class NoiseField:
    """Standard normal noise over an unbounded plane, drawn only where it is read.

    A value is a pure function of (seed, draw, channel, row, column): overlapping windows see the same noise where they
    overlap, whatever their size and order. All tiles of a large image read one field.

    Args:
        seed: the image's seed, derived for one stage.
        device: the device of the noise; it is drawn on the CPU, as in ImageNoise.
    """

    def __init__(self, seed: int, device: str | torch.device = "cpu") -> None:
        self._seed = seed
        self._device = device

    def read(self, draw: int, top: int, left: int, shape: Sequence[int]) -> Tensor:
        """Read the window of shape (C, H, W) of the draw-th field whose first pixel is (top, left), both >= 0."""
        import torch

        from sr3core.transfer import send

        channels, height, width = shape
        window = torch.empty(channels, height, width)
        for row in range(top // NOISE_BLOCK, -(-(top + height) // NOISE_BLOCK)):
            for column in range(left // NOISE_BLOCK, -(-(left + width) // NOISE_BLOCK)):
                generator = keyed_generator(self._seed, "noise field", draw, row, column)
                block = torch.randn(channels, NOISE_BLOCK, NOISE_BLOCK, generator=generator)
                ours, of_block = _meet(top, height, row * NOISE_BLOCK)
                ours_across, of_block_across = _meet(left, width, column * NOISE_BLOCK)
                window[:, ours, ours_across] = block[:, of_block, of_block_across]
        return send(window, self._device)

    def windows(self, corners: Sequence[tuple[int, int]]) -> Callable[[Sequence[int]], Tensor]:
        """Noise for a batch of windows, as a sampler draws it: each call reads the next field, (B, C, H, W).

        Args:
            corners: (top, left) of each window of the batch.
        """
        import torch

        draws = count()

        def draw_next(shape: Sequence[int]) -> Tensor:
            assert shape[0] == len(corners), "one corner per window"
            draw = next(draws)
            return torch.stack([self.read(draw, top, left, shape[1:]) for top, left in corners])  # B times (C, H, W)

        return draw_next


def _meet(first: int, size: int, block: int) -> tuple[slice, slice]:
    """The overlap of [first, first + size) and the block that starts at `block`, relative to the start of each."""
    start, stop = max(first, block), min(first + size, block + NOISE_BLOCK)
    return slice(start - first, stop - first), slice(start - block, stop - block)
