"""Upscaling of large images in overlapping tiles, by one stage or by a cascade.

A stage's whole reverse chain runs on one batch of tiles at a time. All tiles read the same noise field and the same
x_up, so overlapping tiles differ only because of what lies beyond their edges. Smooth weights that sum to 1 blend them.
Memory holds a batch of tiles, one row of tiles and the images between stages, but never a whole image's activations.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from sr3core.diffusion.noise import NoiseField
from sr3core.diffusion.sampling import Progress
from sr3core.images.resize import upsample_window
from sr3core.randomness import derive_seed
from sr3core.regression import with_static
from sr3core.upscaling.stage import Stage, check_chain, fill, pad, refine, with_noise
from sr3core.upscaling.tile_grid import TileGrid, Tiling, plan_tiles

Advance = Callable[[int, int], None]
"""Called with (tiles, denoising steps of tiles) finished since the last call."""


@dataclass(slots=True)
class TileProgress:
    """Progress of one image over all stages."""

    num_tiles: int
    """Tiles of all stages."""
    num_steps: int
    """Denoising steps of all tiles."""
    tiles_done: int = 0
    """Tiles finished."""
    steps_done: int = 0
    """Denoising steps finished."""


def plan_cascade(stages: Sequence[Stage], height: int, width: int, tiling: Tiling) -> list[TileGrid]:
    """Plan the tiles of every stage's output for an input of height x width, filled up to whole pixels.

    Raises:
        ConfigError: the stages' sizes do not match, or the tiling does not fit a stage.
    """
    check_chain([(stage.name, stage.model) for stage in stages])
    grids: list[TileGrid] = []
    for stage in stages:
        covered = stage.model.enlarged(*stage.model.filled(height, width))
        grids.append(plan_tiles(*covered, *tiling.tile_of(stage), stage.size_multiple))
        height, width = stage.model.enlarged(height, width)
    return grids


def run_tiled_cascade(
    stages: Sequence[Stage],
    low: Tensor,
    seed: int,
    tiling: Tiling,
    on_progress: Callable[[TileProgress], None] | None = None,
    static: Tensor | None = None,
) -> Iterator[tuple[int, Tensor]]:
    """Upscale one image through all stages in tiles: the cascade of section 4.3 for images of any size.

    Args:
        stages: the cascade.
        low: (1, 3, h, w) in [-1, 1]; for a model of fields (1, C, h, w), C without the static maps.
        seed: seed of the noise, which does not depend on the tiling.
        tiling: how the stages' outputs are divided into tiles.
        on_progress: called after every denoising step of every batch of tiles.
        static: static maps of the output's size, (1, K, H, W); None for a model without any.

    Yields:
        (top, strip): the first row and the pixels of each finished part of the output, from top to bottom; strip is
            (1, 3, rows, W) in [-1, 1], where W is the width that `output_size` states.
    """
    grids = plan_cascade(stages, low.shape[-2], low.shape[-1], tiling)
    steps = sum(grid.num_tiles * stage.num_steps for stage, grid in zip(stages, grids, strict=True))
    progress = TileProgress(sum(grid.num_tiles for grid in grids), steps)

    def advance(num_tiles: int, num_steps: int) -> None:
        progress.tiles_done += num_tiles
        progress.steps_done += num_steps
        if on_progress:
            on_progress(progress)

    for stage, grid in zip(stages[:-1], grids[:-1], strict=True):
        image = low.new_empty(1, stage.model.unet.image_channels, *stage.model.enlarged(*low.shape[-2:]))
        for top, strip in upscale_tiles(stage, low, grid, seed, tiling.batch, advance):
            image[..., top : top + strip.shape[-2], :] = strip
        low = image
    yield from upscale_tiles(stages[-1], low, grids[-1], seed, tiling.batch, advance, static)


def upscale_in_tiles(
    stage: Stage,
    low: Tensor,
    seeds: Sequence[int],
    progress: Progress | None = None,
    static: Tensor | None = None,
) -> Tensor:
    """Upscale whole images by one stage in tiles of the default size, len(seeds) of them at a time.

    Arguments and result are those of cascade.upscale; progress is called when a whole step of all images is done.
    """
    height, width = low.shape[-2:]
    (grid,) = plan_cascade([stage], height, width, Tiling())
    passes, done = len(seeds) * grid.num_tiles, 0

    def advance(_: int, num_steps: int) -> None:
        nonlocal done
        before, done = done // passes, done + num_steps
        if progress and done // passes > before:
            progress(done // passes, stage.num_steps)

    images: list[Tensor] = []
    for index, seed in enumerate(seeds):
        one = slice(index, index + 1)
        maps = None if static is None else static[one]
        strips = upscale_tiles(stage, low[one], grid, seed, len(seeds), advance, maps)
        images.append(torch.cat([strip for _, strip in strips], dim=-2))
    return torch.cat(images)


def upscale_tiles(
    stage: Stage,
    low: Tensor,
    grid: TileGrid,
    seed: int,
    batch: int,
    advance: Advance,
    static: Tensor | None = None,
) -> Iterator[tuple[int, Tensor]]:
    """Upscale one image, (1, 3, h, w), by one stage in tiles. Yields finished rows like run_tiled_cascade."""
    rows, columns = stage.model.enlarged(*low.shape[-2:])
    clean, noisy = (fill(stage.model, image) for image in (low, with_noise(stage, low, [seed])))
    maps = None if static is None else pad(static, *grid.size)
    for top, strip in _filled_strips(stage, clean, noisy, maps, grid, seed, batch, advance):
        if top < rows:
            yield top, strip[..., : rows - top, :columns]


def _filled_strips(
    stage: Stage,
    low: Tensor,
    noisy: Tensor,
    static: Tensor | None,
    grid: TileGrid,
    seed: int,
    batch: int,
    advance: Advance,
) -> Iterator[tuple[int, Tensor]]:
    """What upscale_tiles yields for an image that is filled up to whole pixels, with what it was filled up with.

    noisy is the image with the noise that the stage adds to its input.
    """
    field = NoiseField(derive_seed(seed, stage.name), low.device)
    down, across = (weights.to(low.device) for weights in grid.weights)
    channels = stage.model.unet.image_channels
    band = low.new_zeros(1, channels, grid.tile[0], grid.padded[1])  # the current row of tiles, blended
    done = 0  # image rows above the band
    for places in _batches(grid, batch):
        tiles = _refine_tiles(stage, low, noisy, static, grid, places, field, advance)
        for (row, column), tile in zip(places, tiles, strict=True):
            if (finished := grid.tops[row] - done) > 0:
                yield done, band[..., :finished, : grid.size[1]].clone()
                band = torch.cat([band[..., finished:, :], torch.zeros_like(band[..., :finished, :])], dim=-2)
                done += finished
            height, width = tile.shape[-2:]
            share = down[row, :height, None] * across[column, :width]  # (height, 1) * (width,) -> (height, width)
            band[0, :, :height, grid.lefts[column] : grid.lefts[column] + width] += share * tile
        advance(len(places), 0)
    yield done, band[..., : grid.size[0] - done, : grid.size[1]]


def _batches(grid: TileGrid, batch: int) -> Iterator[list[tuple[int, int]]]:
    """Batches of tiles as (row, column), in reading order: at most `batch` each, of one size without their padding."""
    places: list[tuple[int, int]] = []
    for place in product(range(len(grid.tops)), range(len(grid.lefts))):
        if places and (len(places) == batch or _inside(grid, place) != _inside(grid, places[0])):
            yield places
            places = []
        places.append(place)
    yield places


def _inside(grid: TileGrid, place: tuple[int, int]) -> tuple[int, int]:
    """(height, width) of the part of a tile that lies inside the image."""
    top, left = grid.tops[place[0]], grid.lefts[place[1]]
    return min(grid.tile[0], grid.size[0] - top), min(grid.tile[1], grid.size[1] - left)


def _refine_tiles(
    stage: Stage,
    low: Tensor,
    noisy: Tensor,
    static: Tensor | None,
    grid: TileGrid,
    places: list[tuple[int, int]],
    field: NoiseField,
    advance: Advance,
) -> Tensor:
    """Run the stage on a batch of tiles: (B, 3, H', W'), without their padding. s is the stage's scale."""
    corners = [(grid.tops[row], grid.lefts[column]) for row, column in places]
    inside = _inside(grid, places[0])
    height, width = _shrunk(stage, inside)
    # Each window is (1, 3, H' / s, W' / s); x_up is (B, 3, H', W') and is then padded to (B, 3, *grid.tile).
    windows = [low[..., top:, left:][..., :height, :width] for top, left in (_shrunk(stage, c) for c in corners)]
    kernel = stage.model.upsampling
    x_up = torch.cat([upsample_window(noisy, grid.size, corner, inside, kernel) for corner in corners])
    if static is not None:
        maps = [static[..., top:, left:][..., : inside[0], : inside[1]] for top, left in corners]
        x_up = with_static(x_up, torch.cat(maps))
    noise = field.windows(corners)
    return refine(stage, torch.cat(windows), pad(x_up, *grid.tile), noise, lambda _, __: advance(0, len(places)))


def _shrunk(stage: Stage, place: tuple[int, int]) -> tuple[int, int]:
    """A place or size in the output of a stage, as one in its input; both are whole numbers of pixels."""
    scale = stage.model.scale
    row, column = (side * scale.denominator // scale.numerator for side in place)
    return row, column
