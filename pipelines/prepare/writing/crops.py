"""Native crops: pieces of a photo at its own resolution, at places that (seed, image, number) decide."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

from pipelines.settings.prepare import PrepareConfig
from pipelines.settings.stages import StageSpec
from pipelines.shards.records import record_key
from sr3core.randomness import derive_seed
from sr3core.sizes import Size, describe, num_pixels, rows_by_columns, sides_of

FLAT_BELOW = 2
"""A crop is flat if the luma of neighbouring pixels differs by less than this on average, in levels of 256. In photos,
skies, walls, black borders and what is out of focus are below; grass, fur and text are above."""

TRIES_PER_CROP = 10
"""Places that are tried for each crop that is wanted; then an image is taken to have no more that are not flat."""

_LUMA = np.array([77, 150, 29], np.int64)
"""BT.601 luma in 256ths: whole numbers, so that every machine finds the same crops flat."""


@dataclass(frozen=True, slots=True)
class Piece:
    """The part of an image that one record is made of."""

    key: str
    """Key of the record."""
    pixels: np.ndarray
    """uint8 (H, W, 3), a view of the image."""
    low: np.ndarray | None = None
    """uint8 (h, w, 3), the same part of the given low-resolution image; None if it is to be made."""
    meta: dict[str, list[int]] = field(default_factory=dict)
    """What the record notes of it: window, [top, left, height, width] in the image, for a native crop."""


def pieces(
    config: PrepareConfig,
    stage: StageSpec,
    name: str,
    digest: str,
    pixels: np.ndarray,
    low: np.ndarray | None = None,
) -> Iterator[Piece]:
    """The parts of an image that become a stage's records: the image itself, or its native crops.

    Args:
        config: how images are cropped.
        stage: its high size is that of the crops.
        name: the image's name in the source.
        digest: SHA-256 of its bytes.
        pixels: uint8 (H, W, 3), no side below the stage's high size.
        low: its given low-resolution image, in the stage's ratio; of a stage without low-resolution images, or with
            made ones, None.
    """
    key = record_key(name, digest)
    if not config.cuts_natively:
        yield Piece(key, pixels)
        return
    size, low_size = stage.high_size, stage.low_size
    scale = Fraction(1) if low is None or stage.scale is None else stage.scale
    for top, left in chosen_places(config, size, key, pixels, scale.numerator):
        yield Piece(
            record_key(f"{name}@{top},{left}", digest),
            _cut(pixels, top, left, size),
            None if low is None or low_size is None else _cut(low, int(top / scale), int(left / scale), low_size),
            {"window": [top, left, *sides_of(size)]},
        )


def chosen_places(
    config: PrepareConfig, size: Size, key: str, pixels: np.ndarray, grid: int = 1
) -> Iterator[tuple[int, int]]:
    """Places (top, left) of an image's crops, no two the same: `crops_per_image`, or as many as there are.

    They are multiples of `grid`: only there does a crop of a given low-resolution image begin with a whole pixel.
    At most the share `max_flat` of the crops wanted, rounded down, is flat; other places are tried in their stead.
    """
    flat_left = int(config.max_flat * config.crops_per_image)
    left_to_cut, tries = config.crops_per_image, config.crops_per_image * TRIES_PER_CROP
    height, width = sides_of(size)
    room = ((pixels.shape[0] - height) // grid + 1, (pixels.shape[1] - width) // grid + 1)
    for _, (row, column) in zip(range(tries), places(config.seed, size, key, room), strict=False):
        place = row * grid, column * grid
        if config.max_flat < 1 and is_flat(_cut(pixels, *place, size)):
            if flat_left == 0:
                continue
            flat_left -= 1
        yield place
        left_to_cut -= 1
        if left_to_cut == 0:
            return


def places(seed: int, size: Size, key: str, room: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """Every place (top, left) once, in a random order that (seed, size, key) decide.

    The first places of a longer list are those of a shorter one. Stages of one high size share them.

    Args:
        seed: of the preparation.
        size: of the crops.
        key: of the image.
        room: number of possible tops and of possible lefts.
    """
    total = room[0] * room[1]
    drawn_for = size if isinstance(size, int) else describe(size)
    moved: dict[int, int] = {}  # a shuffle by swaps, of which only the swapped places are held
    for number in range(total):
        other = number + derive_seed(seed, "crop", drawn_for, key, number) % (total - number)
        drawn = moved.pop(other, other)
        if other != number:
            moved[other] = moved.pop(number, number)
        yield divmod(drawn, room[1])


def is_flat(crop: np.ndarray) -> bool:
    """Whether uint8 (H, W, 3) shows next to nothing: see FLAT_BELOW. A single pixel is flat."""
    luma = crop @ _LUMA  # (H, W, 3) -> (H, W)
    differences = [np.abs(np.diff(luma, axis=axis)) for axis in (0, 1)]
    count = sum(part.size for part in differences)
    return sum(int(part.sum()) for part in differences) < FLAT_BELOW * 256 * max(count, 1)


def describe_crops(config: PrepareConfig, num_images: int) -> Iterator[str]:
    """Lines of a dry run: how many crops each stage gets at most, and their bytes without compression."""
    for stage in config.stage_specs if config.cuts_natively else ():
        count = num_images * config.crops_per_image
        low = 3 * num_pixels(stage.low_size) * (1 + config.blur_variants)
        gigabytes = count * (3 * num_pixels(stage.high_size) + low) / 1e9
        yield (
            f"{stage.name}: at most {count} crops of {rows_by_columns(stage.high_size)} pixels,"
            f" {config.crops_per_image} of each image; {gigabytes:.2f} GB before compression"
        )


def _cut(pixels: np.ndarray, top: int, left: int, size: Size) -> np.ndarray:
    height, width = sides_of(size)
    return pixels[top : top + height, left : left + width]
