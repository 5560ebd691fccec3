"""GIF, BMP and the PNM family, with what their headers can say."""

import io
import struct
from collections.abc import Iterator

import numpy as np
from PIL import Image

from pipelines.images.rejects import RejectReason
from tests.pipelines.images.matrix import cell
from tests.pipelines.images.matrix.cell import HEIGHT, WIDTH, Cell, Damaged, as_rgb, packed, picture, to_8

IMAGEMAGICK = frozenset({"ImageMagick"})  # libvips, as installed, has neither BMP nor PNM


def _gif(colours: int, **options: object) -> bytes:
    image = Image.fromarray(picture(3, 8).astype(np.uint8)).quantize(colours)
    buffer = io.BytesIO()
    image.save(buffer, "GIF", **options)
    return buffer.getvalue()


def _gif_frame(data: bytes, left: int, top: int, width: int, height: int) -> bytes:
    """The file with its frame elsewhere on a larger screen."""
    changed = bytearray(data)
    at = 13 + 3 * 2 ** ((data[10] & 7) + 1)
    while changed[at] == 0x21:  # an extension
        at += 2
        while changed[at]:
            at += changed[at] + 1
        at += 1
    struct.pack_into("<HH", changed, 6, width, height)
    struct.pack_into("<HH", changed, at + 1, left, top)
    return bytes(changed)


def _gifs() -> Iterator[Cell]:
    for colours in (2, 4, 16, 200, 256):
        for interlace in (0, 1):
            yield Cell(f"GIF {colours} colours{', interlaced' * interlace}", _gif(colours, interlace=interlace))
            data = _gif(colours, interlace=interlace, transparency=1)
            yield Cell(f"GIF {colours} colours, one transparent{', interlaced' * interlace}", data)
    grey = io.BytesIO()
    Image.fromarray(picture(1, 8)[..., 0].astype(np.uint8)).save(grey, "GIF")
    yield Cell("GIF grey", grey.getvalue())
    for transparent in ({}, {"transparency": 1}):
        around = None
        if not transparent:
            around = np.empty((HEIGHT + 8, WIDTH + 9, 3), np.uint8)
            inner = np.asarray(Image.open(io.BytesIO(_gif(16))).convert("RGB"))
            around[:] = Image.open(io.BytesIO(_gif(16))).getpalette()[:3]
            around[3 : 3 + HEIGHT, 4 : 4 + WIDTH] = inner
        data = _gif_frame(_gif(16, **transparent), 4, 3, WIDTH + 9, HEIGHT + 8)
        name = f"GIF frame smaller than its screen{', one transparent' * len(transparent)}"
        # Around a frame is the background colour (GIF89a, 18c vii); ImageMagick shows the frame alone, libvips black.
        yield Cell(name, data, around, others=frozenset({"libvips"} if transparent else ()))


def bmp(
    pixels: bytes,
    bits: int,
    height: int = HEIGHT,
    header: int = 40,
    compression: int = 0,
    masks: bytes = b"",
    palette: bytes = b"",
) -> bytes:
    """A BMP with an information header of so many bytes."""
    size, table = header, palette
    if size == 12:
        info = struct.pack("<IHHHH", 12, WIDTH, height, 1, bits)
    else:
        info = struct.pack(
            "<IiiHHIIiiII", size, WIDTH, height, 1, bits, compression, len(pixels), 2835, 2835, len(table) // 4, 0
        )
        info += masks + bytes(max(size - 40 - len(masks), 0))
    at = 14 + len(info) + len(table)
    return struct.pack("<2sIHHI", b"BM", at + len(pixels), 0, 0, at) + info + table + pixels


def _bmp_rows(rows: np.ndarray, top_down: bool) -> bytes:
    rows = np.pad(rows, ((0, 0), (0, -rows.shape[1] % 4)))
    return (rows if top_down else rows[::-1]).tobytes()


def _bmps() -> Iterator[Cell]:
    rgb = picture(3, 8).astype(np.uint8)
    for top_down in (False, True):
        height, word = (-HEIGHT, ", top down") if top_down else (HEIGHT, "")
        bgr = _bmp_rows(rgb[..., ::-1].reshape(HEIGHT, -1), top_down)
        yield Cell(f"BMP 24 bits{word}", bmp(bgr, 24, height), rgb, others=IMAGEMAGICK)
        for alpha in (0, 255):
            bgrx = np.dstack([rgb[..., ::-1], np.full((HEIGHT, WIDTH), alpha, np.uint8)])
            rows = _bmp_rows(bgrx.reshape(HEIGHT, -1), top_down)
            yield Cell(f"BMP 32 bits, fourth byte {alpha}{word}", bmp(rows, 32, height), rgb, others=IMAGEMAGICK)
        for depth in (1, 4, 8):
            index = np.arange(2**depth)
            colours = np.stack([index * 37 % 256, 255 - index, index * 101 % 256], axis=1).astype(np.uint8)
            samples = picture(1, depth)[..., 0]
            table = np.pad(colours[:, ::-1], ((0, 0), (0, 1))).tobytes()
            data = bmp(_bmp_rows(packed(samples, depth), top_down), depth, height, palette=table)
            yield Cell(f"BMP {depth} bits{word}", data, colours[samples], others=IMAGEMAGICK)
        five = picture(3, 5)
        words = five[..., 0] << 10 | five[..., 1] << 5 | five[..., 2]
        data = bmp(_bmp_rows(words.astype("<u2").view(np.uint8), top_down), 16, height)
        yield Cell(f"BMP 16 bits{word}", data, to_8(five, 5), others=IMAGEMAGICK)
        green = picture(3, 6)[..., 1]
        words = five[..., 0] << 11 | green << 5 | five[..., 2]
        masks = struct.pack("<III", 0xF800, 0x7E0, 0x1F)
        data = bmp(_bmp_rows(words.astype("<u2").view(np.uint8), top_down), 16, height, compression=3, masks=masks)
        shown = to_8(five, 5)
        shown[..., 1] = to_8(green, 6)
        yield Cell(f"BMP 16 bits 5:6:5{word}", data, shown, others=IMAGEMAGICK)
    samples = picture(1, 8)[..., 0].astype(np.uint8)
    table = np.repeat(np.arange(256, dtype=np.uint8), 3).reshape(256, 3)
    old = bmp(_bmp_rows(samples, False), 8, header=12, palette=table.tobytes())
    yield Cell("BMP of OS/2", old, as_rgb(samples[..., None]), others=IMAGEMAGICK)
    grey = np.pad(table, ((0, 0), (0, 1))).tobytes()
    runs = b"".join(b"".join(bytes([1, value]) for value in row) + b"\0\0" for row in samples[::-1]) + b"\0\1"
    data = bmp(runs, 8, compression=1, palette=grey)
    yield Cell("BMP run lengths", data, as_rgb(samples[..., None]), others=IMAGEMAGICK)
    nibbles = picture(1, 4)[..., 0].astype(np.uint8)
    runs = b"".join(b"".join(bytes([1, value << 4]) for value in row) + b"\0\0" for row in nibbles[::-1]) + b"\0\1"
    colours = (np.arange(16, dtype=np.uint8) * 17).repeat(3).reshape(16, 3)
    data = bmp(runs, 4, compression=2, palette=np.pad(colours, ((0, 0), (0, 1))).tobytes())
    yield Cell("BMP run lengths of 4 bits", data, colours[nibbles], others=IMAGEMAGICK)
    rgba = picture(4, 8).astype(np.uint8)
    rows = _bmp_rows(rgba[..., [2, 1, 0, 3]].reshape(HEIGHT, -1), False)
    masks = struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    data = bmp(rows, 32, compression=3, masks=masks, header=108)
    shown = cell.on_white(rgba[..., :3] / 255, rgba[..., 3:] / 255)
    yield Cell("BMP with alpha", data, shown, others=IMAGEMAGICK)


def _pnms() -> Iterator[Cell]:
    for top in (1, 15, 100, 255, 1023, 4095, 65535):
        for channels, plain, raw in ((1, "P2", "P5"), (3, "P3", "P6")):
            samples = np.rint(picture(channels, 16) / 65535 * top).astype(int)
            shown = as_rgb(np.rint(samples * 255 / top).astype(np.uint8))
            words = f"{WIDTH} {HEIGHT}\n# a comment\n{top}\n"
            rows = "\n".join(" ".join(map(str, row.reshape(-1))) for row in samples)
            yield Cell(f"PNM {plain}, {top}", f"{plain}\n{words}{rows}\n".encode(), shown, others=IMAGEMAGICK)
            body = samples.astype(">u2" if top > 255 else "u1").tobytes()
            yield Cell(f"PNM {raw}, {top}", f"{raw}\n{words}".encode() + body, shown, others=IMAGEMAGICK)
    bits = picture(1, 1)[..., 0]
    shown = as_rgb((255 - 255 * bits).astype(np.uint8)[..., None])
    rows = "\n".join("".join(map(str, row)) for row in bits)
    yield Cell("PNM P1", f"P1\n{WIDTH} {HEIGHT}\n{rows}\n".encode(), shown, others=IMAGEMAGICK)
    yield Cell("PNM P4", f"P4\n{WIDTH} {HEIGHT}\n".encode() + packed(bits, 1).tobytes(), shown, others=IMAGEMAGICK)
    rgb = picture(3, 8)
    pam = f"P7\nWIDTH {WIDTH}\nHEIGHT {HEIGHT}\nDEPTH 3\nMAXVAL 255\nTUPLTYPE RGB\nENDHDR\n".encode()
    yield Cell("PAM", pam + rgb.astype(np.uint8).tobytes(), reject=RejectReason.UNSUPPORTED)
    for kind, channels in (("PF", 3), ("Pf", 1)):
        body = (picture(channels, 8) / 255).astype("<f4").tobytes()
        yield Cell(f"PFM {kind}", f"{kind}\n{WIDTH} {HEIGHT}\n-1.0\n".encode() + body, reject=RejectReason.UNSUPPORTED)


def cells() -> Iterator[Cell]:
    yield from _gifs()
    yield from _bmps()
    yield from _pnms()


def damaged() -> Iterator[Damaged]:
    for item in cells():
        for what, data in cell.cuts(item.data):
            # Zeros are pixels like others where nothing is compressed.
            if item.reject is None and ("zeros" not in what or item.name.startswith("GIF")):
                yield Damaged(f"{item.name}: {what}", data, item.data)
