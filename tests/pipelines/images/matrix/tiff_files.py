"""TIFFs of every photometric interpretation, bit depth, order of bytes, bits and planes."""

import io
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from PIL import Image

from pipelines.images.rejects import RejectReason
from tests.pipelines.images.matrix import cell
from tests.pipelines.images.matrix.cell import HEIGHT, WIDTH, Cell, Damaged, as_rgb, on_white, picture, to_8
from tests.pipelines.images.matrix.tiff_writer import (
    BLACK_IS_ZERO,
    CIELAB,
    CMYK,
    COMPRESSIONS,
    DEFLATE,
    LONG,
    PALETTE,
    RAW,
    RGB,
    SHORT,
    WHITE_IS_ZERO,
    YCBCR,
    Layout,
    segments_of,
    tiff,
)

BOTH, IMAGEMAGICK = frozenset({"libvips", "ImageMagick"}), frozenset({"ImageMagick"})


def _grey() -> Iterator[Cell]:
    for photometric in (WHITE_IS_ZERO, BLACK_IS_ZERO):
        for depth in (1, 2, 4, 8, 10, 12, 14, 16, 32):
            for order in ("II", "MM"):
                for compression in COMPRESSIONS:
                    for reversed_bits in (False, True) if depth <= 8 else (False,):
                        layout = Layout(photometric, depth, order, compression, reversed_bits=reversed_bits)
                        yield _grey_cell(layout)


def _grey_cell(layout: Layout) -> Cell:
    samples = picture(1, layout.depth)
    shown = as_rgb(to_8(samples, layout.depth))
    if layout.photometric == WHITE_IS_ZERO:
        shown = 255 - shown
    # ImageMagick shows 2 and 4 bits of WhiteIsZero as a negative; libvips has no 12 bits.
    mistaken = "ImageMagick" if layout.photometric == WHITE_IS_ZERO and layout.depth in (2, 4) else "libvips"
    others = BOTH - {mistaken} if layout.depth in (2, 4, 12) else BOTH
    if layout.depth in (2, 4) and layout.photometric == BLACK_IS_ZERO:
        others = BOTH
    return Cell(str(layout), tiff(samples, layout), shown, reject=_reject(layout), others=others)


def _reject(layout: Layout) -> RejectReason | None:
    """What is rejected by name: Pillow cannot open it, or not so that all is well."""
    grey = layout.photometric in (WHITE_IS_ZERO, BLACK_IS_ZERO)
    plain_grey = grey and layout.extra is None
    wide = {12: plain_grey and layout.photometric == BLACK_IS_ZERO and layout.order == "II"}
    left_out = layout.planar and layout.extra == 0  # such a channel is not even read
    big_negative = layout.photometric == WHITE_IS_ZERO and layout.order == "MM"
    wide[16] = (plain_grey or (grey and left_out)) and not big_negative
    raw_planes = layout.planar and layout.compression == RAW
    taken = (
        (layout.depth <= 8 or wide.get(layout.depth, False))
        and not (layout.big and layout.order == "MM")
        and not (grey and layout.planar and (layout.extra != 0 or raw_planes))
        and not (raw_planes and layout.photometric == RGB and layout.extra in (0, 1))
        and not (
            layout.reversed_bits
            and layout.photometric == WHITE_IS_ZERO
            and layout.depth == 8
            and layout.compression == RAW
        )
    )
    return None if taken else RejectReason.UNSUPPORTED


def _colour() -> Iterator[Cell]:
    for depth in (8, 16):
        for order in ("II", "MM"):
            for compression in COMPRESSIONS:
                for planar in (False, True):
                    for extra in (None, 0, 1, 2):
                        for photometric in (RGB, BLACK_IS_ZERO):
                            if photometric == RGB or extra is not None:
                                yield _extra_cell(Layout(photometric, depth, order, compression, extra, planar))


def _extra_cell(layout: Layout) -> Cell:
    colours = 3 if layout.photometric == RGB else 1
    samples, top = picture(colours + (layout.extra is not None), layout.depth), 2**layout.depth - 1
    shown = as_rgb(to_8(samples[..., :colours], layout.depth))
    if layout.extra == 1:  # colours are stored times alpha
        samples[..., :-1] = samples[..., :-1] * samples[..., -1:] // top
        shown = np.rint(255 * (as_rgb(samples[..., :-1] / top) + 1 - samples[..., -1:] / top)).astype(np.uint8)
    elif layout.extra == 2:
        shown = on_white(samples[..., :-1] / top, samples[..., -1:] / top)
    # Both others take any extra channel as alpha; the specification calls this one "unspecified".
    others = frozenset() if layout.extra == 0 else BOTH
    return Cell(str(layout), tiff(samples, layout), shown, reject=_reject(layout), others=others)


def _palettes() -> Iterator[Cell]:
    for depth in (1, 2, 4, 8):
        for order in ("II", "MM"):
            for compression in COMPRESSIONS:
                index = np.arange(2**depth)
                colours = np.stack([index * 37 % 256, 255 - index, index * 101 % 256], axis=1)
                layout = Layout(PALETTE, depth, order, compression)
                samples = picture(1, depth)
                data = tiff(samples, layout, t320=(SHORT, (colours.T.reshape(-1) * 257).tolist()))
                yield Cell(str(layout), data, colours[samples[..., 0]].astype(np.uint8))


def _others() -> Iterator[Cell]:
    for depth in (8, 16):
        for order in ("II", "MM"):
            for compression in COMPRESSIONS:
                for planar in (False, True):
                    layout = Layout(CMYK, depth, order, compression, planar=planar)
                    inks = picture(4, depth) / (2**depth - 1) / 2
                    shown = np.rint(255 * (1 - inks[..., :3]) * (1 - inks[..., 3:])).astype(np.uint8)
                    samples = np.rint(inks * (2**depth - 1)).astype(int)
                    # libvips has a profile of its own for inks without one.
                    yield Cell(str(layout), tiff(samples, layout), shown, reject=_reject(layout), others=IMAGEMAGICK)
    for order in ("II", "MM"):
        for compression in COMPRESSIONS:
            layout = Layout(YCBCR, 8, order, compression)
            ycc = np.asarray(Image.fromarray(picture(3, 8).astype(np.uint8)).convert("YCbCr"))
            shown = np.asarray(Image.fromarray(ycc, "YCbCr").convert("RGB"))
            data = tiff(ycc.astype(int), layout, t530=(SHORT, [1, 1]))
            yield Cell(str(layout), data, shown, tolerance=2, others=IMAGEMAGICK)  # libvips does not convert
        layout = Layout(CIELAB, 8, order)
        lab = np.stack([picture(1, 8)[..., 0], np.full((HEIGHT, WIDTH), 20), np.full((HEIGHT, WIDTH), 256 - 30)], -1)
        # The others: libvips expects 16 bits; ImageMagick has another white point.
        yield Cell(str(layout), tiff(lab, layout), tolerance=8, others=IMAGEMAGICK)
    for order in ("II", "MM"):
        for depth in (32, 64):
            layout = Layout(BLACK_IS_ZERO, depth, order, sample_format=3)
            yield Cell(str(layout), tiff(picture(1, 8) / 255, layout), reject=RejectReason.UNSUPPORTED)
        for depth in (8, 16, 32):
            layout = Layout(BLACK_IS_ZERO, depth, order, sample_format=2)
            yield Cell(str(layout), tiff(picture(1, depth) // 2, layout), reject=RejectReason.UNSUPPORTED)


def _layouts() -> Iterator[Cell]:
    for photometric, depth in ((BLACK_IS_ZERO, 8), (BLACK_IS_ZERO, 16), (RGB, 8), (RGB, 16)):
        for order in ("II", "MM"):
            for compression in COMPRESSIONS:
                base = Layout(photometric, depth, order, compression)
                variants = [replace(base, tiled=True), replace(base, big=True), replace(base, rows_per_strip=HEIGHT)]
                if compression == DEFLATE:
                    variants.append(replace(base, predictor=True))
                if photometric == RGB:
                    variants.append(replace(base, tiled=True, planar=True))
                for layout in variants:
                    samples = picture(3 if photometric == RGB else 1, depth)
                    name = f"{layout}, one strip" if layout.rows_per_strip == HEIGHT else str(layout)
                    others = IMAGEMAGICK if layout.tiled and layout.planar else BOTH  # not in libvips
                    shown = as_rgb(to_8(samples, depth))
                    yield Cell(name, tiff(samples, layout), shown, reject=_reject(layout), others=others)
    for orientation in range(1, 9):
        for photometric, depth in ((BLACK_IS_ZERO, 16), (RGB, 8)):
            for tiled in (False, True):
                for compression in (RAW, DEFLATE):
                    layout = Layout(photometric, depth, "MM", compression, tiled=tiled, orientation=orientation)
                    samples = picture(3 if photometric == RGB else 1, depth)
                    name = str(layout) + (", orientation 1" if orientation == 1 else "")
                    data = tiff(cell.stored(samples, orientation), layout)
                    yield Cell("turned " + name, data, as_rgb(to_8(samples, depth)))


def _saved(options: dict, mode: str, pixels: np.ndarray | None = None) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture(3, 8).astype(np.uint8) if pixels is None else pixels).convert(mode).save(
        buffer, "TIFF", **options
    )
    return buffer.getvalue()


LIBTIFF = (
    ("tiff_lzw", "L"),
    ("tiff_lzw", "RGB"),
    ("tiff_lzw", "P"),
    ("tiff_adobe_deflate", "RGB"),
    ("packbits", "RGB"),
    ("jpeg", "L"),
    ("jpeg", "RGB"),
    ("group3", "1"),
    ("group4", "1"),
    ("tiff_ccitt", "1"),
    ("lzma", "RGB"),
    ("zstd", "RGB"),
)


def _by_libtiff() -> Iterator[Cell]:
    for compression, mode in LIBTIFF:
        others = IMAGEMAGICK if compression in ("lzma", "zstd") else BOTH  # not in libvips
        yield Cell(f"TIFF {compression}, {mode} by libtiff", _saved({"compression": compression}, mode), others=others)


def cells() -> Iterator[Cell]:
    for part in (_grey, _colour, _palettes, _others, _layouts, _by_libtiff):
        yield from part()


def damaged() -> Iterator[Damaged]:
    for compression, mode in LIBTIFF:
        data = _saved({"compression": compression}, mode, cell.noise())
        for what, cut in cell.cuts(data):
            if "zeros" in what and mode == "P":
                continue  # the file ends in the palette, where zeros are colours
            yield Damaged(f"TIFF {compression} {mode} by libtiff: {what}", cut, data)
    for photometric, depth in ((BLACK_IS_ZERO, 1), (BLACK_IS_ZERO, 8), (BLACK_IS_ZERO, 16), (RGB, 8)):
        for compression in COMPRESSIONS:
            for tiled in (False, True):
                layout = Layout(photometric, depth, compression=compression, tiled=tiled)
                samples = picture(3 if photometric == RGB else 1, depth)
                whole = tiff(samples, layout)
                for what, cut in cell.cuts(whole):
                    if "zeros" not in what or compression != RAW:  # where nothing is compressed, zeros are pixels
                        yield Damaged(f"{layout}: {what}", cut, whole)
                offsets, sizes = (324, 325) if tiled else (273, 279)
                segments = segments_of(samples, layout)
                starts = np.cumsum([8, *map(len, segments)])[:-1].tolist()
                lost = {
                    "last segment missing": {
                        f"t{offsets}": (LONG, starts[:-1]),
                        f"t{sizes}": (LONG, [*map(len, segments)][:-1]),
                    },
                    "a segment beyond the end": {f"t{offsets}": (LONG, [*starts[:-1], 10**6])},
                    "a segment of no bytes": {f"t{sizes}": (LONG, [*[*map(len, segments)][:-1], 0])},
                    "a segment too short": {f"t{sizes}": (LONG, [*[*map(len, segments)][:-1], len(segments[-1]) // 2])},
                    "no segments": {f"t{offsets}": (LONG, []), f"t{sizes}": (LONG, [])},
                }
                for what, tags in lost.items():
                    yield Damaged(f"{layout}: {what}", tiff(samples, layout, **tags), whole)
