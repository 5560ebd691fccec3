"""WebP and AVIF: lossy and not, with alpha, turned, cropped, of more bits, moving."""

import io
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyvips
from PIL import Image

from pipelines.images.rejects import RejectReason
from tests.pipelines.images.matrix import cell
from tests.pipelines.images.matrix.cell import Cell, Damaged, picture

LIBVIPS = frozenset({"libvips"})  # where Debian's ImageMagick reads the format otherwise, or not at all


def _saved(kind: str, mode: str = "RGB", pixels: np.ndarray | None = None, **options: object) -> bytes:
    rgba = picture(4, 8).astype(np.uint8)
    image = Image.fromarray(rgba if pixels is None else pixels)
    buffer = io.BytesIO()
    image.convert("RGB").convert(mode).save(buffer, kind, **options) if mode in ("RGB", "L") else image.save(
        buffer, kind, **options
    )
    return buffer.getvalue()


def _webps() -> Iterator[Cell]:
    for mode in ("RGB", "RGBA"):
        settings: tuple[dict[str, Any], ...] = ({"lossless": True, "exact": True}, {"quality": 90}, {"quality": 30})
        for options in settings:
            words = ", ".join(f"{key} {value}" for key, value in options.items())
            yield Cell(f"WebP {mode}, {words}", _saved("WEBP", mode, **options))
    rgb = picture(3, 8).astype(np.uint8)
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        data = _saved("WEBP", "RGB", cell.stored(rgb, orientation), lossless=True, exif=exif)
        yield Cell(f"WebP orientation {orientation}", data, rgb, others=LIBVIPS)
    moving = _saved("WEBP", save_all=True, append_images=[Image.fromarray(255 - rgb)])
    yield Cell("WebP moving", moving, reject=RejectReason.ANIMATED)


def boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Name, begin and end of each box in a part of an ISO media file."""
    while start < end:
        size, name = struct.unpack_from(">I4s", data, start)
        yield name, start, start + size
        start += size


def with_property(data: bytes, prop: bytes) -> bytes:
    """An AVIF whose items all have one property more, such as a crop."""
    path = {name: (begin, end) for name, begin, end in boxes(data, 0, len(data))}
    meta = path[b"meta"]
    inner = {name: (begin, end) for name, begin, end in boxes(data, meta[0] + 12, meta[1])}
    iprp = inner[b"iprp"]
    parts = {name: (begin, end) for name, begin, end in boxes(data, iprp[0] + 8, iprp[1])}
    ipco, ipma = parts[b"ipco"], parts[b"ipma"]
    number = sum(1 for _ in boxes(data, ipco[0] + 8, ipco[1])) + 1
    count = struct.unpack_from(">I", data, ipma[0] + 12)[0]
    entries, at = b"", ipma[0] + 16
    for _ in range(count):
        item, associations = struct.unpack_from(">HB", data, at)
        entries += struct.pack(">HB", item, associations + 1) + data[at + 3 : at + 3 + associations]
        entries += bytes([0x80 | number])
        at += 3 + associations
    new_ipco = data[ipco[0] : ipco[1]] + prop
    new_ipma = data[ipma[0] : ipma[0] + 16] + entries
    props = _resized(new_ipco) + _resized(new_ipma)
    grown = len(props) + 8 - (iprp[1] - iprp[0])
    iloc = inner[b"iloc"]
    moved = _moved(data[iloc[0] : iloc[1]], grown)
    head = data[meta[0] : meta[0] + 12]
    body = b""
    for name, begin, end in boxes(data, meta[0] + 12, meta[1]):
        body += {b"iprp": _resized(b"\0\0\0\0iprp" + props), b"iloc": moved}.get(name, data[begin:end])
    return data[: meta[0]] + _resized(head + body) + data[meta[1] :]


def _resized(box: bytes) -> bytes:
    return struct.pack(">I", len(box)) + box[4:]


def _moved(iloc: bytes, by: int) -> bytes:
    """The box of places with each of them `by` bytes further: version 0, four bytes a number, no base offsets."""
    assert (iloc[8], iloc[12], iloc[13]) == (0, 0x44, 0), iloc.hex()
    changed, at = bytearray(iloc), 16
    for _ in range(struct.unpack_from(">H", iloc, 14)[0]):
        extents = struct.unpack_from(">H", iloc, at + 4)[0]
        at += 6
        for _ in range(extents):
            struct.pack_into(">I", changed, at, struct.unpack_from(">I", iloc, at)[0] + by)
            at += 8
    return bytes(changed)


def _avifs() -> Iterator[Cell]:
    rgb = picture(3, 8).astype(np.uint8)
    plain = {"quality": 100, "subsampling": "4:4:4"}
    yield Cell("AVIF RGB", _saved("AVIF", "RGB", **plain), others=LIBVIPS)
    yield Cell("AVIF RGBA", _saved("AVIF", "RGBA", **plain), others=LIBVIPS, tolerance=2)
    yield Cell("AVIF grey", _saved("AVIF", "L", **plain), others=LIBVIPS)
    yield Cell("AVIF 4:2:0", _saved("AVIF", "RGB", quality=90), others=LIBVIPS, tolerance=8)
    for depth in (10, 12):
        wide = pyvips.Image.new_from_array((picture(3, 16)).astype(np.uint16), interpretation="rgb16")
        data = wide.heifsave_buffer(compression="av1", lossless=True, bitdepth=depth)
        yield Cell(f"AVIF {depth} bits", data, others=LIBVIPS)
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        data = _saved("AVIF", "RGB", cell.stored(rgb, orientation), **plain, exif=exif)
        yield Cell(f"AVIF turned as by orientation {orientation}", data, rgb, others=LIBVIPS, tolerance=3)
    data = _saved("AVIF", "RGB", **plain)
    crop = struct.pack(">I4s8I", 40, b"clap", 20, 1, 10, 1, 0, 1, 0, 1)
    yield Cell("AVIF cropped", with_property(data, crop), reject=RejectReason.UNSUPPORTED)
    uncropped = struct.pack(">I4s8I", 40, b"clap", 31, 1, 23, 1, 0, 1, 0, 1)
    yield Cell("AVIF with a crop to its size", with_property(data, uncropped), others=LIBVIPS)
    for transfer, name in ((13, "sRGB"), (16, "PQ"), (18, "HLG")):
        data = bytearray(_saved("AVIF", "RGB", **plain))
        struct.pack_into(">H", data, data.index(b"nclx") + 6, transfer)
        reject = None if name == "sRGB" else RejectReason.UNSUPPORTED
        yield Cell(f"AVIF {name}", bytes(data), reject=reject, others=LIBVIPS)
    moving = _saved("AVIF", save_all=True, append_images=[Image.fromarray(255 - rgb)])
    yield Cell("AVIF moving", moving, reject=RejectReason.ANIMATED)


def cells() -> Iterator[Cell]:
    yield from _webps()
    yield from _avifs()


def damaged() -> Iterator[Damaged]:
    files = {
        "WebP lossless": _saved("WEBP", pixels=cell.noise(), lossless=True),
        "WebP lossy": _saved("WEBP", pixels=cell.noise(), quality=80),
        "WebP lossy with alpha": _saved("WEBP", "RGBA", pixels=np.dstack([cell.noise(), cell.noise()[..., :1]])),
        "AVIF": _saved("AVIF", pixels=cell.noise(), quality=80),
        "AVIF with alpha": _saved("AVIF", "RGBA", pixels=np.dstack([cell.noise(), cell.noise()[..., :1]])),
    }
    for name, whole in files.items():
        for what, data in cell.cuts(whole):
            yield Damaged(f"{name}: {what}", data, whole)
            if name.startswith("WebP") and "zeros" not in what:
                sized = data[:4] + struct.pack("<I", len(data) - 8) + data[8:]
                yield Damaged(f"{name}: {what}, its length corrected", sized, whole)
