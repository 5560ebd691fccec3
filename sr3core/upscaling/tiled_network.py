"""A network that was trained on crops, applied to whole images: in tiles, whose outputs are blended."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from math import lcm

import torch
from torch import Tensor

from sr3core.hyperparameters import ModelConfig
from sr3core.transfer import send
from sr3core.upscaling.stage import pad
from sr3core.upscaling.tile_grid import TileGrid, default_overlap, default_tile, plan_tiles


@dataclass(frozen=True, slots=True)
class TiledNetwork:
    """Called like the network, on images of any size: one pass over each tile, weighted as for upscaling.

    A chain does not need it: upscaling runs the whole chain of a tile before the next (tiles.py). It is for what looks
    at a whole image at one noise level, such as held-out losses, and for the regression.
    """

    network: Callable[..., Tensor]
    tile: int
    """Side of a tile, pixels, a multiple of `multiple`."""
    overlap: int
    """Least overlap of neighbours, pixels."""
    multiple: int
    """Places and sides of tiles are multiples of it."""
    batch: int = 1
    """Tiles in a pass, of all images together; at least one of each image."""

    def __call__(self, x_up: Tensor, y_t: Tensor, gamma: Tensor, *told: Tensor | None) -> Tensor:
        """(B, C + K, H, W), (B, C, H, W) and (B,) -> (B, C, H, W); `told`: the network's other arguments, (B,) each."""
        height, width = y_t.shape[-2:]
        grid = plan_tiles(height, width, self.tile, self.overlap, self.multiple)
        if grid.tile == (height, width):  # such as a crop in training, which must cost nothing
            return self.network(x_up, y_t, gamma, *told)
        inputs = [pad(image, *grid.padded) for image in (x_up, y_t)]
        down, across = (send(weights, y_t.device) for weights in grid.weights)
        blended = None
        for places in self._batches(grid, len(y_t)):
            windows = [torch.cat([_window(image, grid, place) for place in places]) for image in inputs]
            rest = [None if value is None else value.repeat(len(places)) for value in (gamma, *told)]
            outputs = self.network(*windows, *rest).float()
            if blended is None:
                blended = outputs.new_zeros(len(y_t), outputs.shape[1], *grid.padded)
            for (row, column), output in zip(places, torch.split(outputs, len(y_t)), strict=True):
                share = down[row, :, None] * across[column]  # (tile, 1) * (tile,) -> (tile, tile)
                _window(blended, grid, (row, column)).add_(share * output)
        assert blended is not None, "a grid has at least one tile"
        return blended[..., :height, :width]

    def _batches(self, grid: TileGrid, num_images: int) -> Iterator[list[tuple[int, int]]]:
        places = list(product(range(len(grid.tops)), range(len(grid.lefts))))
        size = max(1, self.batch // num_images)
        return (places[start : start + size] for start in range(0, len(places), size))


def _window(image: Tensor, grid: TileGrid, place: tuple[int, int]) -> Tensor:
    """A view of a tile: (B, C, H, W) -> (B, C, *grid.tile)."""
    top, left = grid.tops[place[0]], grid.lefts[place[1]]
    return image[..., top : top + grid.tile[0], left : left + grid.tile[1]]


def for_whole_images(model: ModelConfig, network: Callable[..., Tensor], batch: int = 1) -> Callable[..., Tensor]:
    """The network as whole images take it: in the tiles of upscaling if it was trained on crops, else as it is."""
    if model.crop_size is None:
        return network
    multiple = lcm(model.unet.size_multiple, model.scale.numerator)
    tile = default_tile(model.unet.image_size, multiple)
    return TiledNetwork(network, tile, default_overlap(tile), multiple, batch)
