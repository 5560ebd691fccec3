"""JPEGs of every process, colour space, sampling and orientation."""

import io
import struct
from collections.abc import Iterator

import numpy as np
from PIL import Image

from pipelines.images.rejects import RejectReason
from tests.pipelines.images.matrix import cell
from tests.pipelines.images.matrix.cell import Cell, Damaged, picture

PROCESSES = {"baseline": {}, "progressive": {"progressive": True}, "restarts": {"restart_marker_blocks": 2}}
SPACES = {
    "grey": ("L", {}),
    "YCbCr 4:4:4": ("RGB", {"subsampling": "4:4:4"}),
    "YCbCr 4:2:2": ("RGB", {"subsampling": "4:2:2"}),
    "YCbCr 4:2:0": ("RGB", {"subsampling": "4:2:0"}),
    "RGB": ("RGB", {"keep_rgb": True}),
    "CMYK": ("CMYK", {}),
}
SOF0, SOF1, SOF3, SOF9, SOF11, JPEG_LS = 0xC0, 0xC1, 0xC3, 0xC9, 0xCB, 0xF7


def jpeg(mode: str, upright: np.ndarray | None = None, **options: object) -> bytes:
    buffer = io.BytesIO()
    pixels = picture(3, 8).astype(np.uint8) if upright is None else upright
    image = Image.fromarray(pixels)
    if mode == "CMYK":
        image = Image.merge("CMYK", [*Image.fromarray(pixels // 2).split(), Image.fromarray(pixels[..., 0] // 3)])
    image.convert(mode).save(buffer, "JPEG", quality=95, **options)
    return buffer.getvalue()


def frame_header(data: bytes) -> int:
    """Where the frame header's marker is."""
    return next(i for i in range(2, len(data)) if data[i] == 0xFF and data[i + 1] in (SOF0, 0xC2))


def with_frame(data: bytes, kind: int, precision: int = 8, height: int | None = None) -> bytes:
    """The file with another process, precision or height in its frame header."""
    at, changed = frame_header(data), bytearray(data)
    changed[at + 1], changed[at + 4] = kind, precision
    if height is not None:
        struct.pack_into(">H", changed, at + 5, height)
    return bytes(changed)


def exif(orientation: int, order: str) -> bytes:
    mark, code = (b"MM\0*", ">") if order == "MM" else (b"II*\0", "<")
    return b"Exif\0\0" + mark + struct.pack(f"{code}IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)


def cells() -> Iterator[Cell]:
    for process, settings in PROCESSES.items():
        for space, (mode, options) in SPACES.items():
            # libvips has a profile of its own for inks without one.
            others = frozenset({"ImageMagick"}) if mode == "CMYK" else frozenset({"libvips", "ImageMagick"})
            yield Cell(f"JPEG {process}, {space}", jpeg(mode, **settings, **options), others=others)
    for orientation in range(1, 9):
        for order in ("II", "MM"):
            pixels = cell.stored(picture(3, 8).astype(np.uint8), orientation)
            data = jpeg("RGB", pixels, subsampling="4:4:4", exif=exif(orientation, order))
            yield Cell(f"JPEG orientation {orientation}, {order}", data, picture(3, 8).astype(np.uint8), tolerance=12)
    plain = jpeg("RGB")
    inks = jpeg("CMYK")
    adobe = inks.index(b"\xff\xee")
    no_adobe = inks[:adobe] + inks[adobe + 2 + int.from_bytes(inks[adobe + 2 : adobe + 4], "big") :]
    yield Cell("JPEG CMYK, not by Adobe", no_adobe, others=frozenset({"ImageMagick"}))
    ycck = inks[: adobe + 15] + b"\x02" + inks[adobe + 16 :]
    yield Cell("JPEG YCCK", ycck, others=frozenset({"ImageMagick"}))
    unsupported = RejectReason.UNSUPPORTED
    yield Cell("JPEG 12 bits", with_frame(plain, SOF1, 12), reject=unsupported)
    yield Cell("JPEG lossless", with_frame(plain, SOF3), reject=unsupported)
    yield Cell("JPEG lossless, 16 bits", with_frame(plain, SOF3, 16), reject=unsupported)
    yield Cell("JPEG lossless, arithmetic coding", with_frame(plain, SOF11), reject=unsupported)
    yield Cell("JPEG-LS", with_frame(plain, JPEG_LS), reject=unsupported)
    yield Cell("JPEG hierarchical", with_frame(plain, 0xC5), reject=unsupported)
    end = plain.rindex(b"\xff\xd9")
    for count in (1, 4, 16):
        yield Cell(
            f"JPEG with {count} stray bytes",
            plain[:end] + bytes(count) + plain[end:],
            others=frozenset({"ImageMagick"}),
        )
    for behind in (b"\0" * 5000, b"appended by a camera", b"\xff" * 9, plain):
        yield Cell(f"JPEG with {len(behind)} bytes behind it", plain + behind)


def damaged() -> Iterator[Damaged]:
    for process, settings in PROCESSES.items():
        for space, (mode, options) in SPACES.items():
            whole = jpeg(mode, cell.noise(), **settings, **options)
            name = f"JPEG {process}, {space}"
            for what, data in cell.cuts(whole):
                yield Damaged(f"{name}: {what}", data, whole)
                if "zeros" in what:
                    yield Damaged(f"{name}: {what}, with an end", data[:-2] + b"\xff\xd9", whole)
            end, middle = whole.rindex(b"\xff\xd9"), len(whole) * 3 // 4
            lost = {
                "many stray bytes": whole[:end] + bytes(1000) + whole[end:],
                "a hole of zeros": whole[:middle] + bytes(2000) + whole[middle + 2000 :],
                "an end in the middle": whole[:middle] + b"\xff\xd9" + whole[middle:],
                "no end": whole[:end],
                "more rows stated": with_frame(whole, whole[frame_header(whole) + 1], 8, 300),
                "no rows stated": with_frame(whole, whole[frame_header(whole) + 1], 8, 0),
                "a piece missing": whole[:middle] + whole[middle + 2000 :],
            }
            for what, data in lost.items():
                yield Damaged(f"{name}: {what}", data, whole)
