"""TIFF: which of its many kinds are decoded, whether all strips are there, and grey of 12 and 16 bits."""

import io
import math
import struct
from typing import NamedTuple

import numpy as np
from PIL import TiffImagePlugin

from pipelines.images import jpeg
from pipelines.images.rejects import DecodeError, RejectReason

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 256, 257, 258, 259, 262
_STRIP_OFFSETS, _SAMPLES, _ROWS_PER_STRIP, _STRIP_SIZES, _PLANES = 273, 277, 278, 279, 284
_TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_SIZES = 322, 323, 324, 325
_SAMPLE_FORMAT, _JPEG_TABLES, _DNG_VERSION = 339, 347, 50706
_UNCOMPRESSED, _JPEG = 1, 7
_WHITE_IS_ZERO, _CMYK, _YCBCR = 0, 5, 6
_UNSIGNED = 1
_ZEROS = bytes(256)
_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_INTERPRETATIONS = {
    0: "grey, white is zero",
    1: "grey",
    2: "RGB",
    3: "palette",
    4: "mask",
    5: "CMYK",
    6: "YCbCr",
    8: "CIELAB",
    32803: "a camera's raw pixels",
    34892: "a camera's raw pixels",
}

Tags = TiffImagePlugin.ImageFileDirectory_v2


class _Segment(NamedTuple):
    """A strip or a tile."""

    offset: int
    size: int | None
    """Bytes, as stated; None if nothing is."""
    rows: int
    """Rows of pixels."""


def is_cut_off(data: bytes) -> bool:
    """Whether its first directory of tags, or the value of one of them, lies beyond the file's end or in zeros."""
    code, big = "<" if data[:2] == b"II" else ">", data[2:4] == b"+\0"
    pointer, count, size = ("Q", "Q", 20) if big else ("I", "H", 12)
    try:
        (at,) = struct.unpack_from(code + pointer, data, 8 if big else 4)
        (entries,) = struct.unpack_from(code + count, data, at)
        at += struct.calcsize(count)
        if not entries:
            return True
        for i in range(entries):
            tag, kind, number, place = struct.unpack_from(f"{code}HH2{pointer}", data, at + i * size)
            num_bytes = number * _TYPE_BYTES.get(kind, 1)
            if tag == 0 or (num_bytes > struct.calcsize(pointer) and place + num_bytes > len(data)):
                return True
    except struct.error:
        return True
    return False


def describe(data: bytes) -> str:
    """What a TIFF that cannot be opened, but is not cut off, holds by its tags."""
    file = io.BytesIO(data)
    tags = Tags(file.read(16 if data[2:4] == b"+\0" else 8))
    file.seek(tags.next)
    tags.load(file)
    return _kind(tags)


def check(image: TiffImagePlugin.TiffImageFile, data: bytes) -> None:
    """Refuse what Pillow decodes to wrong pixels, and what is not all there.

    Raises:
        DecodeError: either of them.
    """
    tags = image.tag_v2
    bits = max(_all(tags, _BITS) or (1,))
    wide_grey = image.mode in ("I;16", "I;16B") and bits in (12, 16)
    signed = any(kind != _UNSIGNED for kind in _all(tags, _SAMPLE_FORMAT))
    mixed = tags.get(_PLANES, 1) == 2 and image.mode in ("LA", "La", "PA")
    if (bits > 8 and not wide_grey) or signed or mixed or image.mode in ("I", "F") or _DNG_VERSION in tags:
        raise DecodeError(RejectReason.UNSUPPORTED, f"{_kind(tags)} is not supported; convert it to PNG")
    for segment in _segments(tags):
        _check_segment(segment, tags, data)


def wide_grey(image: TiffImagePlugin.TiffImageFile, notes: list[str]) -> np.ndarray:
    """Grey of 12 or 16 bits as uint8 (H, W), rounded.

    Args:
        image: loaded, of a mode of 16 bits.
        notes: what was converted is added.
    """
    bits = max(_all(image.tag_v2, _BITS))
    notes.append(f"{bits} bits rounded to 8")
    top = 2**bits - 1
    values = np.asarray(image).astype(np.uint32)
    grey = ((values * 255 + top // 2) // top).astype(np.uint8)
    return 255 - grey if image.tag_v2.get(_PHOTOMETRIC) == _WHITE_IS_ZERO else grey


def _kind(tags: Tags) -> str:
    bits = sorted(set(_all(tags, _BITS) or (1,)))
    photometric = tags.get(_PHOTOMETRIC, 0)
    words = [_INTERPRETATIONS.get(photometric, f"photometric interpretation {photometric}")]
    words.append(f"{', '.join(map(str, bits))} bits a channel")
    if formats := {2: "signed", 3: "floating point"}.get(max(_all(tags, _SAMPLE_FORMAT), default=_UNSIGNED)):
        words.append(formats)
    words += ["channels apart"] * (tags.get(_PLANES, 1) == 2)
    return f"TIFF ({'camera raw (DNG)' if _DNG_VERSION in tags else '; '.join(words)})"


def _segments(tags: Tags) -> list[_Segment]:
    """All strips or tiles that the image's size asks for.

    Raises:
        DecodeError: some are not listed.
    """
    width, height = tags[_WIDTH], tags[_HEIGHT]
    planes = tags.get(_SAMPLES, 1) if tags.get(_PLANES, 1) == 2 else 1
    if _TILE_OFFSETS in tags:
        rows = tags[_TILE_HEIGHT]
        places, sizes = _all(tags, _TILE_OFFSETS), _all(tags, _TILE_SIZES)
        heights = [rows] * (math.ceil(height / rows) * math.ceil(width / tags[_TILE_WIDTH])) * planes
    else:
        rows = min(tags.get(_ROWS_PER_STRIP, height), height)
        places, sizes = _all(tags, _STRIP_OFFSETS), _all(tags, _STRIP_SIZES)
        heights = [min(rows, height - top) for top in range(0, height, rows)] * planes
    if len(places) < len(heights) or (sizes and len(sizes) < len(heights)):
        listed = min(len(places), len(sizes or places))
        raise DecodeError(RejectReason.TRUNCATED, f"the TIFF lists {listed} strips or tiles of {len(heights)}")
    known = sizes or (None,) * len(heights)
    return [_Segment(*parts) for parts in zip(places, known, heights, strict=False)]


def _check_segment(segment: _Segment, tags: Tags, data: bytes) -> None:
    compression, size = tags.get(_COMPRESSION, _UNCOMPRESSED), segment.size
    if compression == _UNCOMPRESSED:
        size = _raw_bytes(segment.rows, tags)
    if size is None:  # only uncompressed pixels can do without
        raise DecodeError(RejectReason.CORRUPT, "the TIFF states no sizes of its strips or tiles")
    if segment.offset + size > len(data):
        raise DecodeError(RejectReason.TRUNCATED, "a strip or tile of the TIFF lies beyond the file's end")
    if compression == _UNCOMPRESSED:
        return
    pixels = data[segment.offset : segment.offset + size]
    if not pixels.rstrip(b"\0"):
        raise DecodeError(RejectReason.CORRUPT, "a strip or tile of the TIFF is empty")
    if pixels.endswith(_ZEROS):
        raise DecodeError(RejectReason.TRUNCATED, "a strip or tile ends in zeros, as a broken download leaves them")
    if compression == _JPEG:  # libtiff ignores the JPEG decoder's complaints
        tables = tags.get(_JPEG_TABLES, b"")
        stream = bytes(tables[:-2]) + pixels[2:] if tables else pixels
        jpeg.decode_jpeg(stream, [], "CMYK" if tags.get(_PHOTOMETRIC) == _CMYK else "RGB")


def _raw_bytes(rows: int, tags: Tags) -> int:
    """Bytes of an uncompressed strip or tile."""
    if tags.get(_PHOTOMETRIC) == _YCBCR:  # subsampled in ways of its own; the decoder counts
        return 0
    width = tags[_TILE_WIDTH] if _TILE_OFFSETS in tags else tags[_WIDTH]
    bits = _all(tags, _BITS) or (1,)
    samples = 1 if tags.get(_PLANES, 1) == 2 else tags.get(_SAMPLES, 1)
    return rows * math.ceil(width * bits[0] * samples / 8)


def _all(tags: Tags, tag: int) -> tuple[int, ...]:
    value = tags.get(tag, ())
    return tuple(value) if isinstance(value, tuple | list) else (value,)
