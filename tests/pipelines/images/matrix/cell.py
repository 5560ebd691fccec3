"""A cell of the matrix of image files: a file, what it shows, and whether we promise to read it."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from pipelines.images.rejects import RejectReason

HEIGHT, WIDTH = 23, 31  # odd, and not square


@dataclass(frozen=True)
class Cell:
    """An undamaged file."""

    name: str
    """Format, and what is special about it."""
    data: bytes
    """The file."""
    shown: np.ndarray | None = None
    """uint8 (H, W, 3): what it shows on white, known from how it was made; None if only decoders can tell."""
    reject: RejectReason | None = None
    """The reason for which we do not take it; None if we do."""
    tolerance: int = 1
    """Grey levels by which decoders may differ."""
    others: frozenset[str] = field(default=frozenset({"libvips", "ImageMagick"}))
    """Decoders whose word counts: those that can read it and are right."""


@dataclass(frozen=True)
class Damaged:
    """A file that lost something."""

    name: str
    data: bytes
    whole: bytes
    """The file before. What is lost may have held no pixels: a file that still shows the same is no loss."""


def picture(channels: int, depth: int, seed: int = 0) -> np.ndarray:
    """A smooth picture with an unmistakable way up and noise in its lowest bits, ints (H, W, C) in [0, 2^depth)."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    ramps = [x / 30, y / 22, (x + y) / 52, (x + 2 * y) / 74, (2 * x + y) / 82]
    top = 2**depth - 1
    smooth = np.stack(ramps[:channels], axis=-1) * top
    noise = np.random.default_rng(seed).integers(0, top // 200 + 1, smooth.shape)
    return np.minimum(np.rint(smooth).astype(np.int64) + noise, top)


def noise() -> np.ndarray:
    """Noise, uint8 (120, 90, 3): enough of it for what is lost to be noticed where a format has no checksum."""
    return np.random.default_rng(5).integers(0, 256, (120, 90, 3), dtype=np.uint8)


def to_8(samples: np.ndarray, depth: int) -> np.ndarray:
    """Samples of `depth` bits, rounded to 8."""
    return np.rint(samples * (255 / (2**depth - 1))).astype(np.uint8)


def as_rgb(colours: np.ndarray) -> np.ndarray:
    """Grey (H, W, 1) or RGB as RGB."""
    return np.broadcast_to(colours, (*colours.shape[:2], 3))


def on_white(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Grey or RGB (H, W, C) with alpha (H, W, 1), both in [0, 1], on white, 8 bits."""
    return np.rint(255 * (as_rgb(colours) * alpha + 1 - alpha)).astype(np.uint8)


def packed(rows: np.ndarray, depth: int, order: str = ">") -> np.ndarray:
    """Rows of samples (H, N) as bytes, (H, bytes a row): the first sample in the highest bits, each row padded."""
    if depth in (8, 16, 32, 64):
        return rows.astype(f"{order}u{depth // 8}").view(np.uint8)
    bits = rows[..., None] >> np.arange(depth)[::-1] & 1
    return np.packbits(bits.reshape(len(rows), -1).astype(np.uint8), axis=1)


def stored(upright: np.ndarray, orientation: int) -> np.ndarray:
    """The pixels that are upright once EXIF orientation 1 to 8 is applied."""
    turned = {
        1: upright,
        2: upright[:, ::-1],
        3: np.rot90(upright, 2),
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: np.rot90(upright, 1),
        7: np.rot90(upright, 2).swapaxes(0, 1),
        8: np.rot90(upright, -1),
    }
    return np.ascontiguousarray(turned[orientation])


def cuts(data: bytes, num_cuts: int = 12) -> Iterator[tuple[str, bytes]]:
    """The file cut off at several places, and with zeros in place of what follows: what a broken download leaves."""
    for i in range(1, num_cuts + 1):
        end = len(data) * i // (num_cuts + 1)
        yield f"cut at {i}/{num_cuts + 1}", data[:end]
        yield f"zeros from {i}/{num_cuts + 1}", data[:end] + bytes(len(data) - end)
    yield "last byte missing", data[:-1]
    yield "last 20 bytes missing", data[:-20]
