"""The beginnings of files that are not decoded, each of which a reject has to name."""

import struct
from collections.abc import Iterator

NAMED: dict[str, tuple[bytes, str]] = {
    "JPEG XL, bare": (b"\xff\x0a\xfa\x1f", "JPEG XL"),
    "JPEG XL in a container": (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    "JPEG 2000": (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    "JPEG 2000, bare": (b"\xffO\xffQ\0\x2f", "JPEG 2000"),
    "JPEG XR": (b"II\xbc\x01\x08\0\0\0", "JPEG XR"),
    "HEIC": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
    "HEIC under a general brand": (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "HEIC"),
    "HEIC of several images": (b"\0\0\0\x18ftypmsf1\0\0\0\0msf1hevc", "HEIC"),
    "CR3": (b"\0\0\0\x18ftypcrx \0\0\0\x01crx isom", "camera raw"),
    "RAF": (b"FUJIFILMCCD-RAW 0201", "camera raw"),
    "ORF": (b"IIRO\x08\0\0\0", "camera raw"),
    "MP4": (b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom", "video"),
    "WebM": (b"\x1aE\xdf\xa3\x01\0\0\0", "video"),
    "AVI": (b"RIFF\x24\0\0\0AVI LIST", "video"),
    "WAVE": (b"RIFF\x24\0\0\0WAVEfmt ", "sound"),
    "PSD": (b"8BPS\0\1\0\0\0\0\0\0\0\3", "PSD"),
    "PDF": (b"%PDF-1.7\n", "PDF"),
    "PostScript": (b"%!PS-Adobe-3.0 EPSF-3.0\n", "PostScript"),
    "SVG": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
    "SVG behind a declaration": (b"\xef\xbb\xbf<?xml version='1.0'?>\n<!-- drawn -->\n<svg/>", "SVG"),
    "OpenEXR": (b"v/1\x01\x02\0\0\0", "OpenEXR"),
    "Radiance": (b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n", "Radiance HDR"),
    "ICO": (b"\0\0\1\0\1\0\x10\x10", "ICO"),
    "QOI": (b"qoif\0\0\0\x10\0\0\0\x10\3\0", "QOI"),
    "XCF": (b"gimp xcf v011\0", "XCF"),
    "DDS": (b"DDS \x7c\0\0\0", "DDS"),
    "FITS": (b"SIMPLE  =                    T", "FITS"),
    "MNG": (b"\x8aMNG\r\n\x1a\n", "MNG"),
}
"""Name -> the file's beginning, and what the reject says."""

NAMES = (*NAMED, "DNG")


def dng() -> bytes:
    """A TIFF that is a camera's raw image with a small preview, as many of them are."""
    entries = [
        (254, 4, 1, 1),
        (256, 4, 1, 4),
        (257, 4, 1, 2),
        (258, 3, 1, 8),
        (259, 3, 1, 1),
        (262, 3, 1, 1),
        (273, 4, 1, 8),
        (277, 3, 1, 1),
        (278, 4, 1, 2),
        (279, 4, 1, 8),
        (50706, 1, 4, 0x0401),
    ]
    directory = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return struct.pack("<2sHI", b"II", 42, 16) + bytes(8) + struct.pack("<H", len(entries)) + directory + bytes(4)


def files() -> Iterator[tuple[str, bytes, str]]:
    """Name, bytes, and what the reject says."""
    for name, (start, word) in NAMED.items():
        yield name, start + bytes(100), word
    yield "DNG", dng(), "camera raw"
