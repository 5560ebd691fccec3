"""Writing a TIFF tag by tag, so that no library decides what is in it."""

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tests.pipelines.images.matrix.cell import packed

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK, YCBCR, CIELAB = 0, 1, 2, 3, 5, 6, 8
NAMES = {0: "WhiteIsZero", 1: "BlackIsZero", 2: "RGB", 3: "palette", 5: "CMYK", 6: "YCbCr", 8: "CIELAB"}
RAW, DEFLATE, PACKBITS = 1, 8, 32773
COMPRESSIONS: dict[int, tuple[str, Callable[[bytes], bytes]]] = {
    RAW: ("uncompressed", lambda rows: rows),
    DEFLATE: ("deflate", zlib.compress),
    PACKBITS: ("PackBits", lambda rows: b"".join(bytes([len(r) - 1]) + r for r in _pieces(rows, 100))),
}
SHORT, LONG, LONG8 = 3, 4, 16


@dataclass(frozen=True)
class Layout:
    """How the samples of a TIFF are laid out."""

    photometric: int
    depth: int
    order: str = "II"
    compression: int = RAW
    extra: int | None = None
    """ExtraSamples: 0 unspecified, 1 associated alpha, 2 unassociated alpha."""
    planar: bool = False
    reversed_bits: bool = False
    predictor: bool = False
    tiled: bool = False
    big: bool = False
    rows_per_strip: int = 7
    sample_format: int = 1
    orientation: int = 1

    def __str__(self) -> str:
        words = [NAMES[self.photometric], f"{self.depth} bits", self.order, COMPRESSIONS[self.compression][0]]
        if self.extra is not None:
            words.append(("extra channel", "associated alpha", "unassociated alpha")[self.extra])
        words += ["planar"] * self.planar + ["bits reversed"] * self.reversed_bits + ["predictor"] * self.predictor
        words += ["tiled"] * self.tiled + ["BigTIFF"] * self.big
        words += [] if self.orientation == 1 else [f"orientation {self.orientation}"]
        words += [] if self.sample_format == 1 else [{2: "signed", 3: "floats"}[self.sample_format]]
        return "TIFF " + ", ".join(words)


def _pieces(data: bytes, size: int) -> list[bytes]:
    return [data[i : i + size] for i in range(0, len(data), size)]


def segments_of(samples: np.ndarray, layout: Layout) -> list[bytes]:
    """Strips or tiles, those of one plane after those of another if the planes are apart."""
    planes = [samples[..., i : i + 1] for i in range(samples.shape[2])] if layout.planar else [samples]
    if layout.tiled:
        blocks = [
            np.pad(tile, ((0, 16 - tile.shape[0]), (0, 16 - tile.shape[1]), (0, 0)))
            for plane in planes
            for y in range(0, len(plane), 16)
            for x in range(0, plane.shape[1], 16)
            for tile in [plane[y : y + 16, x : x + 16]]
        ]
    else:
        step = layout.rows_per_strip
        blocks = [plane[y : y + step] for plane in planes for y in range(0, len(plane), step)]
    return [_compressed(block, layout) for block in blocks]


def _compressed(block: np.ndarray, layout: Layout) -> bytes:
    if layout.predictor:
        block = np.diff(block, axis=1, prepend=0) % 2**layout.depth
    if layout.sample_format == 3:
        rows = block.astype(f"{'<' if layout.order == 'II' else '>'}f{layout.depth // 8}").tobytes()
    else:
        flat = block.reshape(len(block), -1)
        rows = packed(flat, layout.depth, "<" if layout.order == "II" else ">").tobytes()
    data = COMPRESSIONS[layout.compression][1](rows)
    return bytes(int(f"{byte:08b}"[::-1], 2) for byte in data) if layout.reversed_bits else data


def tiff(samples: np.ndarray, layout: Layout, **tags: object) -> bytes:
    """A TIFF of samples (H, W, C); `tags` add others, such as ColorMap, or replace some, by number (t320=...)."""
    segments = segments_of(samples, layout)
    offset, address = (16, LONG8) if layout.big else (8, LONG)
    offsets = np.cumsum([offset, *map(len, segments)])[:-1].tolist()
    height, width, channels = samples.shape
    fields = {
        256: (LONG, [width]),
        257: (LONG, [height]),
        258: (SHORT, [layout.depth] * channels),
        259: (SHORT, [layout.compression]),
        262: (SHORT, [layout.photometric]),
        266: (SHORT, [2 if layout.reversed_bits else 1]),
        274: (SHORT, [layout.orientation]),
        277: (SHORT, [channels]),
        284: (SHORT, [2 if layout.planar else 1]),
        **{int(name[1:]): value for name, value in tags.items()},
    }
    if layout.predictor:
        fields[317] = (SHORT, [2])
    if layout.sample_format != 1:
        fields[339] = (SHORT, [layout.sample_format] * channels)
    if layout.extra is not None:
        fields[338] = (SHORT, [layout.extra])
    if layout.tiled:
        fields |= {322: (LONG, [16]), 323: (LONG, [16]), 324: (address, offsets)}
        fields[325] = (LONG, list(map(len, segments)))
    else:
        fields |= {273: (address, offsets), 278: (LONG, [layout.rows_per_strip])}
        fields[279] = (LONG, list(map(len, segments)))
    return _file(b"".join(segments), fields, layout)


def _file(pixels: bytes, fields: dict, layout: Layout) -> bytes:
    code = "<" if layout.order == "II" else ">"
    start, pointer, count, entry = (16, "Q", "Q", 20) if layout.big else (8, "I", "H", 12)
    pixels += bytes(-len(pixels) % 2)
    inline = struct.calcsize(pointer)
    at = start + len(pixels)
    beyond = at + struct.calcsize(code + count) + entry * len(fields) + inline
    directory, values = struct.pack(code + count, len(fields)), b""
    for tag, (kind, numbers) in sorted(fields.items()):
        raw = struct.pack(f"{code}{len(numbers)}{ {SHORT: 'H', LONG: 'I', LONG8: 'Q'}[kind] }", *numbers)
        directory += struct.pack(f"{code}HH{pointer}", tag, kind, len(numbers))
        if len(raw) > inline:
            directory += struct.pack(code + pointer, beyond + len(values))
            values += raw + bytes(len(raw) % 2)
        else:
            directory += raw.ljust(inline, b"\0")
    directory += bytes(inline)
    mark = layout.order.encode()
    head = struct.pack(code + "HHHQ", 43, 8, 0, at) if layout.big else struct.pack(code + "HI", 42, at)
    return mark + head + pixels + directory + values
