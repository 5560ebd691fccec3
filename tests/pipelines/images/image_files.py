"""Image files of every kind, made by Pillow or by hand, and decoding them."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from pipelines.images.decoding import decode_image
from pipelines.images.rejects import DecodeError, RejectReason

SIZE = (31, 23)  # width, height: odd, and not square


def photo() -> np.ndarray:
    """A smooth colour picture with an unmistakable way up, uint8 (23, 31, 3)."""
    y, x = np.mgrid[0:23, 0:31]
    return np.stack([x * 8, y * 11, (x + y) * 4], axis=-1).astype(np.uint8)


def save(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pillow_rgb(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def raw_png(width: int, height: int, depth: int, colour: int, rows: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG put together by hand, so that no encoder decides what is in it."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    middle = b"".join(chunk(*item) for item in chunks)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + middle
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def rejected(data: bytes, **options: int) -> RejectReason:
    with pytest.raises(DecodeError) as caught:
        decode_image(data, **options)
    assert caught.value.detail
    return caught.value.reason
