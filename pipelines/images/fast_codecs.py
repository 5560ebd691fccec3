"""JPEG and PNG, decoded and encoded faster than by Pillow, to the same pixels.

Milliseconds on one CPU core: decoding JPEG 1024x1024 4 (Pillow 12), PNG 1024x1024 11 (24; libspng 17),
a record's PNG 256x256 0.4, encoding 256x256 as PNG 1.3 (12 at Pillow's own level, the file 5% larger). See
tests/benchmarks/bench_prepare.py.
"""

import io
import struct
import zlib
from collections.abc import Callable
from typing import BinaryIO, NamedTuple

import kornia_rs
import numpy as np
import simplejpeg

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_AVERAGE_FILTER = 3
_MAX_MEMORY = 9
_BAND_ROWS = 64
_IDAT_BYTES = 1 << 20
_IHDR_BODY = slice(16, 29)
_MAX_INFLATION = 1032  # bytes that one byte of a deflate stream can become, at most
_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # channels -> the PNG's code for them
_GREY, _RGB, _GREY_ALPHA, _RGBA = 0, 2, 4, 6
_MODES = {_GREY: "mono", _RGB: "rgb", _RGBA: "rgba"}  # kornia_rs's names


class PngHeader(NamedTuple):
    """What the header chunks of a PNG state."""

    bit_depth: int
    colour_type: int
    transparent: bytes
    """The tRNS chunk, which names transparent colours or palette entries; empty if there is none."""
    metadata_last: bool
    """Whether EXIF or text chunks come after the pixels."""


def decode_jpeg(data: bytes, notes: list[str]) -> np.ndarray:
    """Decode a grey or YCbCr JPEG to RGB (H, W, 3), bit for bit as Pillow.

    Raises:
        ValueError: it is damaged. Stray bytes between markers, which some cameras write, do not count as damage.
    """
    exact = {"colorspace": "RGB", "fastdct": False, "fastupsample": False}
    try:
        return simplejpeg.decode_jpeg(data, **exact)
    except ValueError as error:
        if "extraneous bytes" not in str(error).lower():
            raise
        notes.append("stray bytes ignored")
        return simplejpeg.decode_jpeg(data, strict=False, **exact)


def check_png(data: bytes) -> PngHeader:
    """Check that every chunk is complete and its checksum correct, which decoders do not check.

    Raises:
        ValueError: a chunk is truncated or damaged.
    """
    position, kind, header, transparent = len(_PNG_SIGNATURE), b"", b"", b""
    pixels_seen = metadata_last = False
    while kind != b"IEND":
        if position + 12 > len(data):
            raise ValueError("truncated: the PNG ends before its IEND chunk")
        size, kind = struct.unpack_from(">I4s", data, position)
        end = position + 12 + size
        if end > len(data):
            raise ValueError(f"truncated: the PNG ends within its {kind.decode('latin-1')} chunk")
        body = memoryview(data)[position + 4 : end - 4]
        if zlib.crc32(body) != int.from_bytes(data[end - 4 : end], "big"):
            raise ValueError(f"checksum of the PNG's {kind.decode('latin-1')} chunk at byte {position} is wrong")
        if kind == b"IHDR":
            header = bytes(body[4:])
        elif kind == b"tRNS":
            transparent = bytes(body[4:])
        pixels_seen |= kind == b"IDAT"
        metadata_last |= pixels_seen and kind in (b"eXIf", b"tEXt", b"zTXt", b"iTXt")
        position = end
    if len(header) != 13:
        raise ValueError("the PNG has no valid IHDR chunk")
    return PngHeader(header[8], header[9], transparent, metadata_last)


def decode_png_rgb(data: bytes) -> np.ndarray:
    """Decode an 8-bit RGB PNG without transparency to (H, W, 3).

    Raises:
        ValueError: it is damaged, or a PNG of another kind.
    """
    return _decoded(kornia_rs.io.decode_image_png_u8, data, _RGB)


def decode_png_16(data: bytes, header: PngHeader) -> tuple[np.ndarray, np.ndarray | None]:
    """Decode a 16-bit PNG to RGB uint8 (H, W, 3), rounded, and alpha uint8 (H, W), or None if it has none.

    Raises:
        ValueError: it is damaged.
    """
    wide = _decode_wide(data, header.colour_type)
    colours, alpha = wide, None
    if header.colour_type in (_GREY_ALPHA, _RGBA):
        colours, alpha = wide[..., :-1], wide[..., -1]
    elif header.transparent:
        key = np.frombuffer(header.transparent, ">u2")
        alpha = np.where((colours == key).all(axis=-1), 0, 65535)
    narrow = _to_8_bits(colours)
    rgb = np.broadcast_to(narrow, (*narrow.shape[:2], 3))
    return np.ascontiguousarray(rgb), None if alpha is None else _to_8_bits(alpha)


def encode_png(image: np.ndarray) -> bytes:
    """Encode uint8 (H, W, C) as PNG: grey, grey and alpha, RGB or RGBA for C from 1 to 4."""
    file = io.BytesIO()
    writer = PngWriter(file, *image.shape)
    writer.write(image)
    writer.close()
    return file.getvalue()


class PngWriter:
    """Encodes a PNG a few rows at a time, so that an image of any size needs little memory.

    Uses one filter for all rows (the mean of left and above) and Huffman coding only: for photographs nearly as small
    as choosing the best filter for each row, and 15 times as fast.

    Args:
        file: receives the bytes.
        height: of the image, pixels.
        width: of the image, pixels.
        channels: 1 to 4: grey, grey and alpha, RGB, RGBA.
        profile: ICC profile to embed, if not empty.
    """

    def __init__(self, file: BinaryIO, height: int, width: int, channels: int, profile: bytes = b"") -> None:
        self._file, self._channels = file, channels
        self._deflate = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS, _MAX_MEMORY, zlib.Z_HUFFMAN_ONLY)
        self._last_row = np.zeros(width * channels, np.uint8)
        self._pending = bytearray()
        header = struct.pack(">IIBBBBB", width, height, 8, _COLOUR_TYPES[channels], 0, 0, 0)
        file.write(_PNG_SIGNATURE + _chunk(b"IHDR", header))
        if profile:
            file.write(_chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(profile)))

    def write(self, image: np.ndarray) -> None:
        """Append rows, uint8 (rows, width, channels)."""
        rows, channels = image.reshape(len(image), -1), self._channels
        left, above = (np.zeros((_BAND_ROWS, rows.shape[1]), np.uint8) for _ in range(2))
        filtered = np.full((_BAND_ROWS, rows.shape[1] + 1), _AVERAGE_FILTER, np.uint8)
        for first in range(0, len(rows), _BAND_ROWS):  # a band of rows stays in the CPU cache
            band = rows[first : first + _BAND_ROWS]
            count = len(band)
            left[:count, channels:] = band[:, :-channels]
            above[0] = self._last_row
            above[1:count] = band[:-1]
            mean = ((left[:count] ^ above[:count]) >> 1) + (left[:count] & above[:count])
            np.subtract(band, mean, out=filtered[:count, 1:])
            self._last_row = band[-1].copy()
            self._pending += self._deflate.compress(filtered[:count].data)
            if len(self._pending) >= _IDAT_BYTES:
                self._flush()

    def close(self) -> None:
        """Finish the file after the last row."""
        self._pending += self._deflate.flush()
        self._flush()
        self._file.write(_chunk(b"IEND", b""))

    def _flush(self) -> None:
        self._file.write(_chunk(b"IDAT", bytes(self._pending)))
        self._pending.clear()


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _decode_wide(data: bytes, colour_type: int) -> np.ndarray:
    """The 16-bit samples of a PNG, (H, W, channels)."""
    if colour_type != _GREY_ALPHA:
        return _decoded(kornia_rs.io.decode_image_png_u16, data, colour_type)
    # The decoder lacks this mode, whose four bytes a pixel are filtered and stored like those of 8-bit RGBA.
    header = data[_IHDR_BODY]
    as_rgba = _chunk(b"IHDR", header[:8] + bytes([8, _RGBA]) + header[10:])
    alike = _PNG_SIGNATURE + as_rgba + data[len(_PNG_SIGNATURE) + len(as_rgba) :]
    return _decoded(kornia_rs.io.decode_image_png_u8, alike, _RGBA).view(">u2")


def _decoded(decode: Callable[..., np.ndarray], data: bytes, colour_type: int) -> np.ndarray:
    header = data[_IHDR_BODY]
    if len(header) != 13:
        raise ValueError("truncated: the PNG ends within its header")
    width, height = struct.unpack_from(">II", header)
    if width * height > _MAX_INFLATION * len(data):  # the decoder would ask for that memory first, and panic
        raise ValueError(f"the PNG's header states {width}x{height} pixels, more than {len(data)} bytes can hold")
    try:
        return decode(data, (height, width), _MODES[colour_type])
    except Exception as error:  # the decoder raises plain exceptions
        raise ValueError(str(error)) from error


def _to_8_bits(wide: np.ndarray) -> np.ndarray:
    return ((wide.astype(np.uint32) + 128) // 257).astype(np.uint8)
