"""Standard normal noise of images as a pure function of (seed, draw, channel, row, column), made on the images' device.

An image's noise depends on its seed alone: not on its batch, its tile, its worker or its device (see philox). All
noise, of training, of samplers and of tiles, is a window of the same unbounded planes.
"""

from collections.abc import Callable, Sequence
from itertools import count

import torch
from torch import Tensor

from sr3core.diffusion.philox import normal_from_words, philox
from sr3core.transfer import send

_WORDS = 4
"""Values of a row that one counter gives."""
_COUNTERS_AT_ONCE = 2**13
"""On a CPU, so that what is computed on stays in its cache."""


def window_noise(
    seeds: Sequence[int],
    draw: int,
    corners: Sequence[tuple[int, int]],
    shape: Sequence[int],
    device: str | torch.device = "cpu",
) -> Tensor:
    """Read one window of the draw-th plane of each seed.

    The counter of four neighbours in a row is (column / 4, row, channel, draw); the key is the seed.

    Args:
        seeds: B seeds in [0, 2^63).
        draw: number of the plane, from 0.
        corners: (top, left) of each of the B windows, >= 0.
        shape: (C, H, W) of each window.
        device: where the noise is made; the host only sends B rows of numbers.

    Returns:
        (B, C, H, W) float32.
    """
    channels, height, width = shape
    lefts = [left % _WORDS for _, left in corners]
    num_counters = -(-(max(lefts, default=0) + width) // _WORDS)
    rows = [
        [seed & 0xFFFFFFFF, seed >> 32, top, left // _WORDS] for seed, (top, left) in zip(seeds, corners, strict=True)
    ]
    # (B, 4) -> four of (B, 1, 1)
    key0, key1, top, first = send(torch.tensor(rows, dtype=torch.int64), device).view(-1, 4, 1, 1).unbind(1)
    of_rows = [
        key0,
        key1,
        first,
        top + torch.arange(height, device=device),
        torch.arange(channels, device=device)[:, None],
    ]
    # Five of (B, C, H) -> (B C H, 5): what the counters and keys of each row have in common.
    each_row = torch.stack([values.expand(len(rows), channels, height) for values in of_rows], -1).view(-1, 5)
    at_once = max(1, _COUNTERS_AT_ONCE // max(num_counters, 1)) if torch.device(device).type == "cpu" else len(each_row)
    noise = torch.cat([_noise_of_rows(part, num_counters, draw) for part in torch.split(each_row, at_once)])
    noise = noise.view(len(rows), channels, height, -1)
    if not any(lefts):
        return noise[..., :width]
    return torch.stack([image[..., left : left + width] for image, left in zip(noise, lefts, strict=True)])


def _noise_of_rows(each_row: Tensor, num_counters: int, draw: int) -> Tensor:
    """(R, 5) numbers of rows -> their noise, (R, 4 num_counters) float32."""
    key0, key1, first, row, channel = each_row[..., None].unbind(1)  # (R, 1) each
    column = first + torch.arange(num_counters, device=each_row.device)
    return normal_from_words(philox((column, row, channel, torch.full_like(row, draw)), (key0, key1))).flatten(1)


def add_input_noise(low: Tensor, levels: Tensor, seeds: Sequence[int]) -> Tensor:
    """Noise-conditioning augmentation (Ho et al., 2022): sqrt(1 - t^2) x + t epsilon, of variance 1 where x's is.

    Args:
        low: x, (B, C, h, w).
        levels: t of each image, (B,) in [0, 1).
        seeds: one per image, of the noise.
    """
    epsilon = window_noise(seeds, 0, [(0, 0)] * len(seeds), low.shape[1:], low.device)
    t = levels[:, None, None, None]
    return (1 - t.square()).sqrt() * low + t * epsilon


class ImageNoise:
    """The noise of whole images, draw after draw, as a sampler asks for it.

    Args:
        seeds: one seed per image of the batch.
        device: the device of the noise.
    """

    def __init__(self, seeds: Sequence[int], device: str | torch.device = "cpu") -> None:
        self._seeds, self._device, self._draws = list(seeds), device, count()

    def __call__(self, shape: Sequence[int]) -> Tensor:
        """Make the next noise, of shape (B, C, H, W)."""
        assert shape[0] == len(self._seeds), "one seed per image"
        return window_noise(self._seeds, next(self._draws), [(0, 0)] * len(self._seeds), shape[1:], self._device)


class NoiseField:
    """The noise of one image of any size, made only where it is read: tiles see the same where they overlap.

    Args:
        seed: the image's seed, derived for one stage.
        device: the device of the noise.
    """

    def __init__(self, seed: int, device: str | torch.device = "cpu") -> None:
        self._seed, self._device = seed, device

    def read(self, draw: int, top: int, left: int, shape: Sequence[int]) -> Tensor:
        """Read the window of shape (C, H, W) of the draw-th plane whose first pixel is (top, left), both >= 0."""
        return window_noise([self._seed], draw, [(top, left)], shape, self._device)[0]

    def windows(self, corners: Sequence[tuple[int, int]]) -> Callable[[Sequence[int]], Tensor]:
        """Noise for a batch of windows, as a sampler asks for it: each call reads the next plane, (B, C, H, W).

        Args:
            corners: (top, left) of each window of the batch.
        """
        draws = count()

        def draw_next(shape: Sequence[int]) -> Tensor:
            assert shape[0] == len(corners), "one corner per window"
            return window_noise([self._seed] * len(corners), next(draws), corners, shape[1:], self._device)

        return draw_next
