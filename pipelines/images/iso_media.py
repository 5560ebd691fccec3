"""The boxes of ISO media files, of which AVIF is one (ISO/IEC 14496-12, 23008-12): what decoders overlook in them."""

import struct
from collections.abc import Iterator
from typing import NamedTuple

from pipelines.images.rejects import DecodeError, RejectReason

_BRANDS = {
    (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"): "HEIC",
    (b"avif", b"avis"): "AVIF",
    (b"jp2 ", b"jpx ", b"jpm "): "JPEG 2000",
    (b"crx ",): "camera raw (CR3)",
    (b"mif1", b"msf1", b"mif2"): "HEIF",
}
_HDR_TRANSFERS = {16: "PQ", 18: "HLG"}  # ITU-T H.273
_ZEROS = bytes(64)
_CONTAINERS = {b"meta": 12, b"iprp": 8, b"ipco": 8}
"""Boxes that hold boxes, and where in them the first begins."""


class _Box(NamedTuple):
    name: bytes
    begin: int
    end: int


def is_iso_media(data: bytes) -> bool:
    """Whether it is a file of this family: an image or a video."""
    return data[4:8] == b"ftyp"


def is_cut_off(data: bytes) -> bool:
    """Whether a box states more bytes than the file has."""
    return any(box.end > len(data) for box in _boxes(data, 0, len(data)))


def describe(data: bytes) -> str:
    """What kind of file it is, by the brands that it names."""
    end = min(int.from_bytes(data[:4], "big"), 400)
    brands = [data[8:12], *(data[at : at + 4] for at in range(16, end, 4))]
    for brand in brands:
        for known, name in _BRANDS.items():
            if brand in known and name != "HEIF":
                return name
    return "HEIF" if any(brand in (b"mif1", b"msf1", b"mif2") for brand in brands) else "a video, or other ISO media,"


def check_avif(data: bytes, size: tuple[int, int]) -> None:
    """Refuse what the decoder would show wrongly.

    Args:
        data: the file.
        size: (width, height) of the pixels as stored.

    Raises:
        DecodeError: it is cropped by a property, of high dynamic range, or its pixels end in zeros.
    """
    last = b""
    for box in _boxes(data, 0, len(data)):
        last = box.name
    if last == b"mdat" and data.endswith(_ZEROS):
        raise DecodeError(RejectReason.TRUNCATED, "the pixels end in zeros, as a broken download leaves them")
    for box in _properties(data):
        body = data[box.begin + 8 : box.end]
        if box.name == b"clap" and len(body) == 32:
            width, width_divisor, height, height_divisor = struct.unpack_from(">4I", body)
            if (width, height) != (size[0] * width_divisor, size[1] * height_divisor):
                detail = "cropped AVIF (its clap property) is not supported; convert it to PNG"
                raise DecodeError(RejectReason.UNSUPPORTED, detail)
        if box.name == b"colr" and body[:4] == b"nclx":
            refuse_hdr("AVIF", int.from_bytes(body[6:8], "big"))


def refuse_hdr(file_format: str, transfer: int) -> None:
    """Refuse pixels that mean brightness beyond sRGB's white.

    Raises:
        DecodeError: the transfer function (ITU-T H.273) is one of high dynamic range.
    """
    if transfer in _HDR_TRANSFERS:
        detail = f"{file_format} of high dynamic range ({_HDR_TRANSFERS[transfer]}); convert it to sRGB"
        raise DecodeError(RejectReason.UNSUPPORTED, detail)


def _properties(data: bytes) -> Iterator[_Box]:
    """What is stated about the file's items: meta, iprp, ipco."""
    boxes = list(_boxes(data, 0, len(data)))
    for name, first in _CONTAINERS.items():
        boxes = [inner for box in boxes if box.name == name for inner in _boxes(data, box.begin + first, box.end)]
    yield from boxes


def _boxes(data: bytes, start: int, end: int) -> Iterator[_Box]:
    while start + 8 <= end:
        size, name = struct.unpack_from(">I4s", data, start)
        if size == 1 and start + 16 <= end:
            (size,) = struct.unpack_from(">Q", data, start + 8)
        stop = end if size == 0 else start + size
        yield _Box(name, start, stop)
        if size != 0 and size < 8:
            return
        start = stop
