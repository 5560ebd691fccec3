"""How images are divided into overlapping tiles: their places, and the weights that blend them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from sr3core.errors import ConfigError
from sr3core.sizes import Size, sides_of
from sr3core.upscaling.stage import Stage

SMALLEST_DEFAULT_TILE = 256
"""Default tile side, in pixels, of networks trained on smaller images or crops: few tiles, and still little memory."""


@dataclass(frozen=True, slots=True)
class Tiling:
    """How images are divided into tiles, in every stage of a cascade."""

    tile: int | None = None
    """Side of a tile of a stage's output, pixels, rounded down to what the network accepts; None: see default_tile."""
    overlap: int | None = None
    """Minimum overlap of neighbouring tiles, pixels; None: an eighth of the tile."""
    batch: int = 1
    """Tiles per forward pass of the network."""

    def __post_init__(self) -> None:
        if self.tile is not None and self.tile < 1:
            raise ConfigError(f"tile: {self.tile} is not positive")
        if self.overlap is not None and self.overlap < 0:
            raise ConfigError(f"overlap: {self.overlap} is negative")
        if self.batch < 1:
            raise ConfigError(f"batch: {self.batch} is not positive")

    def tile_of(self, stage: Stage) -> tuple[int, int]:
        """Side and overlap of a stage's tiles, pixels; default_tile says which by default.

        Raises:
            ConfigError: the tile is smaller than stage.size_multiple, or the overlap leaves no room to advance.
        """
        multiple = stage.size_multiple
        wanted = default_tile(stage.model.unet.image_size, multiple) if self.tile is None else self.tile
        tile = wanted // multiple * multiple
        overlap = default_overlap(tile) if self.overlap is None else self.overlap
        if tile < multiple:
            raise ConfigError(f"tile: {wanted} is too small for stage {stage.name}, which needs at least {multiple}")
        if overlap > tile - multiple:
            raise ConfigError(
                f"overlap: {overlap} leaves tiles of {tile} pixels no room to advance by the {multiple} pixels of stage"
                f" {stage.name}; use at most {tile - multiple}, or a larger tile"
            )
        return tile, overlap


def default_tile(image_size: Size, multiple: int) -> int:
    """Side of a tile, pixels, a multiple of `multiple`: the longer one of images or crops of training, at least 256."""
    return max(*sides_of(image_size), SMALLEST_DEFAULT_TILE) // multiple * multiple


def default_overlap(tile: int) -> int:
    """Least overlap of neighbouring tiles, pixels: an eighth of the tile."""
    return tile // 8


@dataclass(frozen=True)
class TileGrid:
    """Positions and blending weights of the tiles of one image; plan_tiles creates it."""

    size: tuple[int, int]
    """(height, width) of the image; the last tiles may extend beyond it, into padding."""
    tile: tuple[int, int]
    """(height, width) of every tile."""
    tops: tuple[int, ...]
    """First pixel row of each row of tiles, increasing from 0."""
    lefts: tuple[int, ...]
    """First pixel column of each column of tiles, increasing from 0."""

    @property
    def num_tiles(self) -> int:
        """Number of tiles."""
        return len(self.tops) * len(self.lefts)

    @property
    def padded(self) -> tuple[int, int]:
        """(height, width) that the tiles cover."""
        return self.tops[-1] + self.tile[0], self.lefts[-1] + self.tile[1]

    @cached_property
    def weights(self) -> tuple[Tensor, Tensor]:
        """Weights (rows of tiles, tile height) and (columns of tiles, tile width); a pixel's is their product."""
        pairs = ((self.tops, self.tile[0]), (self.lefts, self.tile[1]))
        down, across = (torch.as_tensor(blend_weights(starts, side)).float() for starts, side in pairs)
        return down, across


def plan_tiles(height: int, width: int, tile: int, overlap: int, multiple: int) -> TileGrid:
    """Cover an image of height x width with tiles that overlap by at least `overlap` pixels.

    Tile positions, tile sides and the sides of the padded image are multiples of `multiple`, so that the network's
    coarse levels align with the same pixels in every tile. An image no larger than a tile becomes one tile.

    Args:
        tile: side of a tile, a multiple of `multiple`.
        overlap: at most tile - multiple.
    """
    padded = [side + -side % multiple for side in (height, width)]
    tops, lefts = (tile_starts(side, tile, overlap, multiple) for side in padded)
    return TileGrid((height, width), (min(tile, padded[0]), min(tile, padded[1])), tops, lefts)


def tile_starts(size: int, tile: int, overlap: int, multiple: int) -> tuple[int, ...]:
    """Starts of the fewest tiles that cover an axis: evenly spaced multiples of `multiple`; the last ends at size."""
    if size <= tile:
        return (0,)
    stride = (tile - overlap) // multiple
    units = (size - tile) // multiple
    gaps = -(-units // stride)
    return tuple(index * units // gaps * multiple for index in range(gaps + 1))


def blend_weights(starts: Sequence[int], tile: int) -> np.ndarray:
    """Blending weights of N tiles along an axis, (N, tile) float64 in [0, 1], which sum to 1 at every pixel.

    Where two tiles overlap, one weight falls as the other rises, as a squared sine. The outer quarter of a tile's
    overlap has weight 0: the network sees least context at a tile's edge, and the neighbour sees more there.
    """
    weights = np.ones((len(starts), tile))
    for index in range(1, len(starts)):
        shared = starts[index - 1] + tile - starts[index]
        ramp = _ramp(shared)
        weights[index, :shared] *= ramp
        weights[index - 1, tile - shared :] *= ramp[::-1]
    total = np.zeros(starts[-1] + tile)
    for start, weight in zip(starts, weights, strict=True):
        total[start : start + tile] += weight
    return np.stack([weight / total[start : start + tile] for start, weight in zip(starts, weights, strict=True)])


def _ramp(length: int) -> np.ndarray:
    """Weights that rise from 0 to 1, (length,): ramp + ramp[::-1] = 1."""
    margin = length // 4
    share = (np.arange(length) + 0.5 - margin) / max(length - 2 * margin, 1)
    return np.sin(np.clip(share, 0, 1) * np.pi / 2) ** 2
