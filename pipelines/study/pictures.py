"""Uniform re-encoding of a study's images: PNG without metadata, all files of the same number of bytes."""

import struct
import zlib
from collections.abc import Iterable

import numpy as np

from sr3core.images.pixels import to_float, to_uint8
from sr3core.images.resize import resize_area, upsample_bicubic
from sr3core.randomness import derive_seed

NUM_BLOCKS = 8
"""Blocks along the side of a spoilt image."""
_END = b"\0\0\0\0IEND\xaeB`\x82"
_CHUNK_BYTES = 12
"""Length, type and checksum of an empty chunk."""


def pad(images: Iterable[bytes]) -> list[bytes]:
    """Pad PNGs to one length with an empty chunk: a blurry image's file is smaller, which a network panel reveals."""
    encoded = list(images)
    size = max(map(len, encoded)) + _CHUNK_BYTES
    return [_padded(data, size) for data in encoded]


def _padded(data: bytes, size: int) -> bytes:
    assert data.endswith(_END)
    body = b"paDd" + bytes(size - len(data) - _CHUNK_BYTES)  # ancillary, private, safe to ignore
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    return data[: -len(_END)] + chunk + _END


def enlarge(low: np.ndarray, height: int, width: int) -> np.ndarray:
    """The low-resolution input as shown in the middle: x_up, so that every screen shows the same pixels."""
    return to_uint8(upsample_bicubic(to_float(low[None]), (height, width)))[0]


def spoil(pixels: np.ndarray, seed: int, name: str) -> np.ndarray:
    """A copy that no attentive subject takes for a photo: coarse blocks with strong coloured noise."""
    height, width = pixels.shape[:2]
    side = min(height, width)
    blocks = resize_area(pixels[:side, :side], min(NUM_BLOCKS, side)).astype(np.float64)
    generator = np.random.Generator(np.random.Philox(derive_seed(seed, "study/spoil", name)))
    noisy = np.clip(blocks + generator.normal(0, 40, blocks.shape), 0, 255).astype(np.uint8)
    rows, columns = (np.arange(length) * len(noisy) // length for length in (height, width))
    return noisy[rows][:, columns]
