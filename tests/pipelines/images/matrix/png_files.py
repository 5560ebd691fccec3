"""PNGs of every colour type, bit depth, transparency and order of rows, written chunk by chunk."""

import struct
import zlib
from collections.abc import Iterator

import numpy as np

from tests.pipelines.images.matrix.cell import (
    HEIGHT,
    WIDTH,
    Cell,
    Damaged,
    as_rgb,
    cuts,
    on_white,
    packed,
    picture,
    stored,
    to_8,
)

GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6
CHANNELS = {GREY: 1, RGB: 3, PALETTE: 1, GREY_ALPHA: 2, RGBA: 4}
DEPTHS = {GREY: (1, 2, 4, 8, 16), RGB: (8, 16), PALETTE: (1, 2, 4, 8), GREY_ALPHA: (8, 16), RGBA: (8, 16)}
ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
KINDS = [(colour, depth, interlaced) for colour in DEPTHS for depth in DEPTHS[colour] for interlaced in (False, True)]
NAMES = {GREY: "grey", RGB: "RGB", PALETTE: "palette", GREY_ALPHA: "grey with alpha", RGBA: "RGBA"}
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
Chunk = tuple[bytes, bytes]


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(samples: np.ndarray, depth: int, colour: int, interlaced: bool, before: list[Chunk], **parts: bytes) -> bytes:
    """A PNG of samples (H, W, C); `stream` replaces its pixels, `after` are chunks behind them."""
    height, width = samples.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    stream = parts.get("stream", zlib.compress(pixel_stream(samples, depth, interlaced)))
    head = chunk(b"IHDR", header) + b"".join(chunk(*part) for part in before)
    return PNG_SIGNATURE + head + chunk(b"IDAT", stream) + parts.get("after", b"") + chunk(b"IEND", b"")


def pixel_stream(samples: np.ndarray, depth: int, interlaced: bool, kind: int = 0) -> bytes:
    """Rows, each behind its filter type; interlaced ones in the seven passes of Adam7."""
    parts = [samples[y::dy, x::dx] for y, x, dy, dx in ADAM7] if interlaced else [samples]
    rows = [packed(part.reshape(len(part), -1), depth) for part in parts if part.size]
    return b"".join(bytes([kind]) + row.tobytes() for part in rows for row in part)


def palette(depth: int) -> np.ndarray:
    """Colours (N, 3) that resemble no grey ramp."""
    index = np.arange(min(2**depth, 200))
    return np.stack([index * 37 % 256, 255 - index, index * 101 % 256], axis=-1).astype(np.uint8)


def _kind(colour: int, depth: int, interlaced: bool) -> tuple[np.ndarray, list[Chunk], np.ndarray]:
    """Samples, the chunks that they need, and what they show on white."""
    samples, chunks = picture(CHANNELS[colour], depth), []
    if colour == PALETTE:
        colours = palette(depth)
        samples = samples % len(colours)
        return samples, [(b"PLTE", colours.tobytes())], colours[samples[..., 0]]
    if colour in (GREY_ALPHA, RGBA):
        scaled = samples / (2**depth - 1)
        return samples, chunks, on_white(scaled[..., :-1], scaled[..., -1:])
    return samples, chunks, as_rgb(to_8(samples, depth))


def _with_key(colour: int, depth: int, interlaced: bool) -> Cell:
    """One colour, or half of a palette, is transparent."""
    samples, chunks, shown = _kind(colour, depth, interlaced)
    name = f"PNG {NAMES[colour]} {depth} bits, transparent colour{', interlaced' * interlaced}"
    if colour == PALETTE:
        colours = palette(depth)
        alpha = (np.arange(len(colours) // 2 + 1) * 90 % 256).astype(np.uint8)
        full = np.append(alpha, np.full(len(colours) - len(alpha), 255, np.uint8))
        shown = on_white(shown / 255, full[samples] / 255)
        return Cell(name, png(samples, depth, colour, interlaced, [*chunks, (b"tRNS", alpha.tobytes())]), shown)
    key = samples[HEIGHT // 2, WIDTH // 2].copy()
    if depth == 16:  # a colour that is the key's in 8 bits, but not in 16
        samples[0, 0] = key ^ 1
        shown = as_rgb(to_8(samples, depth))
    clear = (samples == key).all(axis=-1, keepdims=True)
    shown = np.where(clear, 255, shown).astype(np.uint8)
    return Cell(name, png(samples, depth, colour, interlaced, [*chunks, (b"tRNS", key.astype(">u2").tobytes())]), shown)


def _oriented(orientation: int, order: str, behind: bool) -> Cell:
    samples = stored(picture(3, 8), orientation)
    mark, code = (b"MM\0*", ">") if order == "MM" else (b"II*\0", "<")
    exif = mark + struct.pack(f"{code}IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)
    before, after = ([], chunk(b"eXIf", exif)) if behind else ([(b"eXIf", exif)], b"")
    name = f"PNG orientation {orientation}, {order}, EXIF {'behind' if behind else 'before'} the pixels"
    # ImageMagick 6 does not turn PNGs, libvips overlooks EXIF behind the pixels.
    others = frozenset() if behind else frozenset({"libvips"})
    return Cell(name, png(samples, 8, RGB, False, before, after=after), picture(3, 8).astype(np.uint8), others=others)


def cells() -> Iterator[Cell]:
    for colour, depth, interlaced in KINDS:
        samples, chunks, shown = _kind(colour, depth, interlaced)
        name = f"PNG {NAMES[colour]} {depth} bits{', interlaced' * interlaced}"
        # Each is within 1 of the truth; 16 bits are composited by the others before they are rounded.
        tolerance = 2 if depth == 16 and colour in (GREY_ALPHA, RGBA) else 1
        yield Cell(name, png(samples, depth, colour, interlaced, chunks), shown, tolerance=tolerance)
        if colour in (GREY, RGB, PALETTE):
            yield _with_key(colour, depth, interlaced)
    for orientation in range(1, 9):
        for order in ("II", "MM"):
            for behind in (False, True):
                yield _oriented(orientation, order, behind)


def damaged() -> Iterator[Damaged]:
    for colour, depth, interlaced in KINDS:
        samples, chunks, _ = _kind(colour, depth, interlaced)
        name = f"PNG {NAMES[colour]} {depth} bits{', interlaced' * interlaced}"
        whole = png(samples, depth, colour, interlaced, chunks)
        rows = pixel_stream(samples, depth, interlaced)
        packed_rows = zlib.compress(rows)
        streams = {
            "last row missing": zlib.compress(rows[: -len(rows) // HEIGHT]),
            "half of the rows": zlib.compress(rows[: len(rows) // 2]),
            "one byte missing": zlib.compress(rows[:-1]),
            "no pixels": zlib.compress(b""),
            "stream cut": packed_rows[: len(packed_rows) * 3 // 4],
            "stream of zeros": bytes(100),
            "unknown filter": zlib.compress(pixel_stream(samples, depth, interlaced, kind=7)),
        }
        for what, stream in streams.items():
            yield Damaged(f"{name}: {what}", png(samples, depth, colour, interlaced, chunks, stream=stream), whole)
        for what, data in cuts(whole, 4):
            yield Damaged(f"{name}: {what}", data, whole)
        if colour == PALETTE:
            short = [(b"PLTE", palette(depth)[: len(palette(depth)) // 2].tobytes())]
            yield Damaged(f"{name}: colours missing", png(samples, depth, colour, interlaced, short), whole)
            yield Damaged(f"{name}: no palette", png(samples, depth, colour, interlaced, []), whole)
    samples, _, _ = _kind(RGB, 8, False)
    text = (b"tEXt", b"Comment\0spoilt")
    whole = png(samples, 8, RGB, False, [text])
    yield Damaged("PNG: wrong checksum of a text", whole.replace(b"spoilt", b"Spoilt"), whole)
