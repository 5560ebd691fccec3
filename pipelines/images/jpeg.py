"""JPEG -> RGB or CMYK, bit for bit as Pillow, but with every complaint of the decoder taken seriously.

A JPEG of 1024x1024 takes 4 milliseconds of one CPU core, with Pillow 12.
"""

import re
from collections.abc import Iterator

import numpy as np
import simplejpeg

MAX_STRAY_BYTES = 16
"""Bytes between the pixels and the next marker that still count as a camera's habit; more are a sign of damage."""

_MAX_TRIES = 32
_START_OF_IMAGE, _END_OF_IMAGE, _START_OF_SCAN = 0xD8, 0xD9, 0xDA
_WITHOUT_LENGTH = frozenset({0x01, _START_OF_IMAGE, *range(0xD0, 0xD8)})
_NO_FRAME = frozenset({0xC4, 0xC8, 0xCC})  # tables among the codes of frame headers
_PROCESSES = {
    0xC3: "lossless JPEG",
    0xC5: "hierarchical JPEG",
    0xC6: "hierarchical JPEG",
    0xC7: "hierarchical lossless JPEG",
    0xCB: "lossless JPEG with arithmetic coding",
    0xCD: "hierarchical JPEG",
    0xCE: "hierarchical JPEG",
    0xCF: "hierarchical lossless JPEG",
    0xF7: "JPEG-LS",
}
_STRAY = re.compile(r"(\d+) extraneous bytes before marker 0x([0-9a-f]{2})", re.IGNORECASE)


def decode_jpeg(data: bytes, notes: list[str], colorspace: str = "RGB") -> np.ndarray:
    """Decode a JPEG to uint8 (H, W, 3), or to its inks (H, W, 4), 255 for none, with colorspace "CMYK".

    Raises:
        ValueError: it is damaged. Up to 16 stray bytes before a marker, which some cameras write, are no damage.
    """
    try:
        return _decoded(data, colorspace)
    except ValueError as error:
        if not _STRAY.search(str(error)):
            raise
        pixels = _decoded(data, colorspace, strict=False)
        if not _is_whole(data, pixels, colorspace, str(error), 0, iter(range(_MAX_TRIES))):
            raise
    notes.append("stray bytes ignored")
    return pixels


def describe_unsupported(data: bytes) -> str | None:
    """What kind of JPEG it is, if of a kind that is not decoded."""
    for position, code in _markers(data):
        if (0xC0 <= code <= 0xCF and code not in _NO_FRAME) or code == 0xF7:
            precision = data[position + 4] if position + 4 < len(data) else 8
            if code in _PROCESSES:
                return _PROCESSES[code]
            return None if precision == 8 else f"JPEG of {precision} bits a channel"
    return None


def _decoded(data: bytes, colorspace: str, strict: bool = True) -> np.ndarray:
    return simplejpeg.decode_jpeg(data, colorspace=colorspace, fastdct=False, fastupsample=False, strict=strict)


def _is_whole(data: bytes, pixels: np.ndarray, colorspace: str, complaint: str, after: int, tries: Iterator) -> bool:
    """Whether these pixels, decoded in spite of a complaint, are all that is decoded without stray bytes.

    The decoder names only its first complaint, and pixels that it makes up after a second one would pass unseen.
    So the bytes are taken out and the rest is decoded strictly, at each place where they can be.
    """
    stray = _STRAY.search(complaint)
    if not stray or int(stray[1]) > MAX_STRAY_BYTES:
        return False
    count, code = int(stray[1]), int(stray[2], 16)
    for place in [place for place, kind in _markers(data) if kind == code and place >= after]:
        if next(tries, None) is None:
            return False
        without = data[: place - count] + data[place:]
        try:
            if np.array_equal(_decoded(without, colorspace), pixels):
                return True
        except ValueError as error:  # the wrong place, or there are more stray bytes behind it
            if _is_whole(without, pixels, colorspace, str(error), place - count, tries):
                return True
    return False


def _markers(data: bytes) -> Iterator[tuple[int, int]]:
    """Place and code of each marker up to the end of the image."""
    at = 2
    while 0 <= (at := data.find(b"\xff", at)) < len(data) - 1:
        code = data[at + 1]
        if code in (0, 0xFF):  # a pixel's byte, or one to fill up
            at += 2 if code == 0 else 1
            continue
        yield at, code
        if code == _END_OF_IMAGE:
            return
        at += 2 if code in _WITHOUT_LENGTH else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
