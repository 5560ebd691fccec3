"""PNG of every colour type and bit depth -> RGB and alpha; a missing or damaged part of it is an error."""

import struct
import zlib
from functools import cache
from typing import NamedTuple

import numpy as np
from PIL import Image

from pipelines.images import fast_png

SIGNATURE = fast_png.PNG_SIGNATURE
_GREY, _RGB, _PALETTE, _GREY_ALPHA, _RGBA = 0, 2, 3, 4, 6
_CHANNELS = {_GREY: 1, _RGB: 3, _PALETTE: 1, _GREY_ALPHA: 2, _RGBA: 4}
_ALIKE = {1: (8, _GREY), 2: (16, _GREY), 3: (8, _RGB), 4: (8, _RGBA), 6: (16, _RGB), 8: (16, _RGBA)}
"""Bytes a pixel -> the bit depth and colour type that the fast decoder knows, filtered and stored the same way."""
_ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
"""Top, left, and the steps down and right of the seven passes of an interlaced PNG."""
_METADATA = (b"eXIf", b"tEXt", b"zTXt", b"iTXt")


class PngHeader(NamedTuple):
    """What the chunks of a PNG state."""

    width: int
    height: int
    bit_depth: int
    colour_type: int
    interlaced: bool
    palette: bytes
    """The PLTE chunk: three bytes a colour; empty if there is none."""
    transparent: bytes
    """The tRNS chunk, which names transparent colours or palette entries; empty if there is none."""
    metadata_last: bool
    """Whether EXIF or text chunks come after the pixels."""
    transfer: int
    """The transfer function that its cICP chunk names (ITU-T H.273); 0 if there is none."""

    @property
    def is_grey(self) -> bool:
        """Whether it has one colour channel."""
        return self.colour_type in (_GREY, _GREY_ALPHA)


def check_png(data: bytes) -> PngHeader:
    """Check that every chunk is complete and its checksum correct, which decoders do not check.

    Raises:
        ValueError: a chunk is truncated or damaged.
    """
    position, kind, pixels_seen, metadata_last = len(SIGNATURE), b"", False, False
    bodies: dict[bytes, bytes] = {}
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
        if kind in (b"IHDR", b"PLTE", b"tRNS", b"cICP"):
            bodies[kind] = bytes(body[4:])
        pixels_seen |= kind == b"IDAT"
        metadata_last |= pixels_seen and kind in _METADATA
        position = end
    header = bodies.get(b"IHDR", b"")
    if len(header) != 13:
        raise ValueError("the PNG has no valid IHDR chunk")
    width, height, depth, colour_type, _, _, interlaced = struct.unpack(">IIBBBBB", header)
    palette, transparent, code = (bodies.get(name, b"") for name in (b"PLTE", b"tRNS", b"cICP"))
    return PngHeader(
        width, height, depth, colour_type, bool(interlaced), palette, transparent, metadata_last, code[1] if code else 0
    )


def decode_png(data: bytes, header: PngHeader) -> tuple[np.ndarray, np.ndarray | None]:
    """Decode a checked PNG to RGB uint8 (H, W, 3), 16 bits rounded to 8, and alpha uint8 (H, W), None if it has none.

    Raises:
        ValueError: it is damaged.
    """
    samples = _samples(data, header)
    if header.colour_type == _PALETTE:
        return _coloured(samples[..., 0], header)
    colours, alpha = samples, None
    if header.colour_type in (_GREY_ALPHA, _RGBA):
        colours, alpha = samples[..., :-1], _to_8_bits(samples[..., -1], header.bit_depth)
    elif header.transparent:
        key = np.frombuffer(header.transparent, ">u2")
        if len(key) != colours.shape[-1]:
            raise ValueError(f"the PNG's transparent colour has {len(key)} channels, not {colours.shape[-1]}")
        alpha = np.where((colours == key).all(axis=-1), 0, 255).astype(np.uint8)
    narrow = _to_8_bits(colours, header.bit_depth)
    rgb = np.ascontiguousarray(np.broadcast_to(narrow, (*narrow.shape[:2], 3)))
    return rgb, None if alpha is None else np.ascontiguousarray(alpha)


def _coloured(index: np.ndarray, header: PngHeader) -> tuple[np.ndarray, np.ndarray | None]:
    palette = np.frombuffer(header.palette[: len(header.palette) // 3 * 3], np.uint8).reshape(-1, 3)
    last = int(index.max())
    if last >= len(palette):
        raise ValueError(f"the PNG's pixels name colour {last} of a palette of {len(palette)}")
    picture = Image.fromarray(np.ascontiguousarray(index))
    picture.putpalette(palette.tobytes())
    rgb = np.asarray(picture.convert("RGB"))
    if not header.transparent:
        return rgb, None
    alpha = np.full(256, 255, np.uint8)
    listed = np.frombuffer(header.transparent, np.uint8)[:256]
    alpha[: len(listed)] = listed
    return rgb, alpha.take(index)


def _samples(data: bytes, header: PngHeader) -> np.ndarray:
    """The stored numbers, (H, W, channels): uint8, or big-endian uint16 if there are 16 bits."""
    channels, depth = _CHANNELS.get(header.colour_type, 0), header.bit_depth
    if not channels:
        raise ValueError(f"the PNG's colour type {header.colour_type} does not exist")
    if depth < 8:
        return _few_bits(data, header)
    alike = _ALIKE[channels * depth // 8]
    if alike != (depth, header.colour_type):
        data = _rewritten(header.width, header.height, *alike, _pixel_chunks(data), header.interlaced)
    stored = fast_png.decode_png_samples(data, header.width, header.height, *alike)
    if alike[0] == depth:
        return stored
    as_bytes = stored.astype(">u2").view(np.uint8) if alike[0] == 16 else stored
    as_bytes = as_bytes.reshape(header.height, header.width, -1)
    return as_bytes.view(">u2") if depth == 16 else as_bytes


def _few_bits(data: bytes, header: PngHeader) -> np.ndarray:
    """Samples of 1, 2 or 4 bits: a row of bytes that hold several is filtered and stored as one of grey pixels is."""
    if not header.interlaced:
        return _unpacked(_pixel_chunks(data), header.width, header.height, header.bit_depth)[..., None]
    samples = np.empty((header.height, header.width, 1), np.uint8)
    rows = zlib.decompressobj().decompress(b"".join(_bodies(data)), header.width * header.height + 14 * header.height)
    at = 0
    for top, left, down, right in _ADAM7:
        part = samples[top::down, left::right, 0]
        if part.size:
            end = at + part.shape[0] * (1 + -(-part.shape[1] * header.bit_depth // 8))
            stream = fast_png.png_chunk(b"IDAT", zlib.compress(rows[at:end], 1))
            part[:] = _unpacked(stream, part.shape[1], part.shape[0], header.bit_depth)
            at = end
    return samples


def _unpacked(idat: bytes, width: int, height: int, depth: int) -> np.ndarray:
    row_bytes = -(-width * depth // 8)
    packed = _rewritten(row_bytes, height, 8, _GREY, idat)
    stored = fast_png.decode_png_samples(packed, row_bytes, height, 8, _GREY)[..., 0]
    spread = _spreads(depth).take(stored).view(np.uint8)
    return spread.reshape(height, -1)[:, :width]


@cache
def _spreads(depth: int) -> np.ndarray:
    """The samples of each byte that holds several, one to a byte, as one number each."""
    shifts = np.arange(8 - depth, -1, -depth, dtype=np.uint8)
    spread = np.arange(256, dtype=np.uint8)[:, None] >> shifts & (2**depth - 1)
    return spread.view(f"u{8 // depth}")[:, 0]


def _rewritten(width: int, height: int, depth: int, colour_type: int, pixels: bytes, interlaced: bool = False) -> bytes:
    """A PNG of the same filtered bytes under another name."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, interlaced)
    begin, end = fast_png.png_chunk(b"IHDR", header), fast_png.png_chunk(b"IEND", b"")
    return SIGNATURE + begin + pixels + end


def _pixel_chunks(data: bytes) -> bytes:
    return b"".join(fast_png.png_chunk(b"IDAT", body) for body in _bodies(data))


def _bodies(data: bytes) -> list[bytes]:
    """What the IDAT chunks of a checked PNG hold."""
    position, found = len(SIGNATURE), []
    while position < len(data):
        size, kind = struct.unpack_from(">I4s", data, position)
        if kind == b"IEND":
            break
        if kind == b"IDAT":
            found.append(data[position + 8 : position + 8 + size])
        position += 12 + size
    return found


def _to_8_bits(samples: np.ndarray, depth: int) -> np.ndarray:
    if depth == 8:
        return samples
    if depth == 16:
        return ((samples.astype(np.uint32) + 128) // 257).astype(np.uint8)
    return samples * np.uint8(255 // (2**depth - 1))
