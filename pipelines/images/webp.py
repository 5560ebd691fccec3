"""WebP whose end was lost and is filled with zeros: its decoder takes the zeros for pixels."""

import io
import struct

import numpy as np
from PIL import Image

from pipelines.images.rejects import DecodeError, RejectReason

_MIN_ZEROS = 32


def check_end(data: bytes) -> None:
    """Check that zeros at the end, if there are many, are pixels: the end of a flat picture may well be zeros.

    Raises:
        DecodeError: they are not.
    """
    end = len(data.rstrip(b"\0"))
    num_zeros = len(data) - end
    if num_zeros < _MIN_ZEROS:
        return
    place = _last_chunk(data)
    if place is None or place + 8 > end or not _are_pixels(data, place, num_zeros):
        detail = f"the last {num_zeros} bytes are zeros, as a broken download leaves them"
        raise DecodeError(RejectReason.TRUNCATED, detail)


def _are_pixels(data: bytes, place: int, num_zeros: int) -> bool:
    """Whether the zeros at the end of the chunk at `place` can be what an encoder wrote."""
    kind = data[place : place + 4]
    if kind not in (b"VP8 ", b"VP8L"):
        return True  # metadata: what is lost of it changes no pixel
    kept = len(data) - num_zeros // 2
    kept -= (kept - place) % 2  # a chunk's length is even
    cut = bytearray(data[:kept])
    struct.pack_into("<I", cut, 4, kept - 8)
    struct.pack_into("<I", cut, place + 4, kept - place - 8)
    try:
        _load(bytes(cut))
    except (OSError, ValueError):
        pass  # the decoder needs all of them
    else:
        return False  # with a few zero bits, it drew all that was left of the picture
    # Lossless coding needs far less than a bit for each pixel of a flat picture, and zeros for no other.
    return kind == b"VP8 " or 8 * num_zeros <= _num_flat(_load(data))


def _load(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data), formats=("WEBP",)))


def _num_flat(pixels: np.ndarray) -> int:
    """Pixels of the rows at the bottom that equal those above them."""
    differs = np.flatnonzero((pixels[1:] != pixels[:-1]).any(axis=(1, 2)))
    return (len(pixels) - 2 - int(differs[-1])) * pixels.shape[1] if len(differs) else pixels[..., 0].size


def _last_chunk(data: bytes) -> int | None:
    """Where the last chunk begins; None if the chunks do not fill the file."""
    at, last = 12, None
    while at + 8 <= len(data):
        last = at
        at += 8 + (int.from_bytes(data[at + 4 : at + 8], "little") + 1) // 2 * 2
    return last if at >= len(data) - 1 else None
