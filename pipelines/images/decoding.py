"""Image bytes -> uint8 RGB pixels as a person sees them, or the reason why they cannot be decoded.

EXIF orientation is applied. Transparency is composited onto white, or returned beside the colours for callers that
keep it. Colour profiles and CMYK are converted to sRGB. 16 bits become 8 by rounding, not truncation. Damage of any
kind is a rejection, never grey pixels. Animations and files of several pages are rejected, since it is not known which
frame is meant.
"""

import io
import struct
import warnings
import zlib
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, TiffImagePlugin, UnidentifiedImageError

from pipelines.images import colour, iso_media, jpeg, png, tiff, unsupported, webp
from pipelines.images.rejects import DecodeError, RejectReason

MAX_PIXELS = 2**27
"""Largest image that is decoded: 134 million pixels, 400 MB. A larger one is treated as a decompression bomb."""

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "AVIF", "PPM")
_SIGNATURES = (b"\xff\xd8\xff", png.SIGNATURE[:6], b"GIF8", b"RIFF", b"BM", b"II*\0", b"MM\0*", b"II+\0")
_SIGNS = (
    (("too large",), RejectReason.TOO_LARGE),  # compressed text or profiles that would inflate to gigabytes
    (
        ("truncated", "premature end", "end of stream", "unexpected end", "not enough", "eof"),
        RejectReason.TRUNCATED,
    ),
    (("unsupported", "not supported", "unknown raw mode"), RejectReason.UNSUPPORTED),
)
"""Words of an error, and the reason that they give away."""
_ORIENTATION = 0x0112
_DAMAGE = (
    *(OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, RuntimeError),
    *(struct.error, zlib.error),
)
"""What Pillow's plugins raise on damaged files."""


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """An image as it is meant to be displayed."""

    pixels: np.ndarray
    """uint8 (H, W, 3), sRGB."""
    format: str
    """File format: "JPEG", "PNG", ..."""
    notes: tuple[str, ...]
    """Conversions that were made: "orientation 6", "transparency on white", ..."""


@dataclass(frozen=True, slots=True)
class DecodedPhoto:
    """An image with colours and transparency apart, and what is needed to write another of its kind."""

    pixels: np.ndarray
    """uint8 (H, W, 3), sRGB, independent of the transparency."""
    alpha: np.ndarray | None
    """uint8 (H, W), 255 is opaque; None if all of it is opaque."""
    is_grey: bool
    """Whether the file is greyscale."""
    profile: bytes
    """The file's ICC profile; empty if it has none."""
    format: str
    """File format: "JPEG", "PNG", ..."""
    notes: tuple[str, ...]
    """Conversions that were made."""


def decode_image(data: bytes, max_pixels: int = MAX_PIXELS) -> DecodedImage:
    """Decode an image of any common format.

    Raises:
        DecodeError: it cannot be decoded; carries the reason.
    """
    stored, orientation, notes = _decoded(data, max_pixels)
    pixels = _upright(colour.composite(stored.pixels, stored.alpha, notes), orientation, notes)
    return DecodedImage(np.ascontiguousarray(pixels), stored.format, tuple(notes))


def decode_photo(data: bytes, max_pixels: int = MAX_PIXELS) -> DecodedPhoto:
    """Decode an image of any common format, with its transparency kept apart.

    Raises:
        DecodeError: it cannot be decoded; carries the reason.
    """
    stored, orientation, notes = _decoded(data, max_pixels)
    pixels = _upright(stored.pixels, orientation, notes)
    alpha = None if stored.alpha is None or (stored.alpha == 255).all() else stored.alpha
    return replace(
        stored,
        pixels=np.ascontiguousarray(pixels),
        alpha=None if alpha is None else np.ascontiguousarray(_upright(alpha, orientation, [])),
        notes=tuple(notes),
    )


def _decoded(data: bytes, max_pixels: int) -> tuple[DecodedPhoto, int, list[str]]:
    """Pixels as stored, the EXIF orientation yet to be applied, and notes; every failure becomes a DecodeError."""
    if not data:
        raise DecodeError(RejectReason.EMPTY, "the file is empty")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns about odd metadata, which changes no pixel
        try:
            return _decode(data, max_pixels)
        except Image.DecompressionBombError as error:
            raise DecodeError(RejectReason.TOO_LARGE, str(error)) from error
        except MemoryError as error:
            raise DecodeError(RejectReason.TOO_LARGE, "does not fit into memory") from error
        except _DAMAGE as error:
            raise _as_reject(error, data) from error


def _decode(data: bytes, max_pixels: int) -> tuple[DecodedPhoto, int, list[str]]:
    header = png.check_png(data) if data.startswith(png.SIGNATURE) else None
    image = _open(data, max_pixels)
    width, height = image.size
    if width * height > max_pixels:
        raise DecodeError(RejectReason.TOO_LARGE, f"{width}x{height} is more than {max_pixels} pixels")
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":  # MPO: a camera's photo, followed by a preview
        raise DecodeError(RejectReason.ANIMATED, f"{frames} frames or pages; extract the one that you need")
    notes: list[str] = []
    orientation = _orientation(image, header)
    is_grey = image.mode in ("1", "L", "LA", "La") or image.mode.startswith("I;16")
    if header is not None:
        is_grey = header.is_grey  # Pillow calls 16 bits of grey with alpha RGBA
    profile = image.info.get("icc_profile") or b""
    pixels, alpha = _pixels(data, image, profile, header, notes)
    return DecodedPhoto(pixels, alpha, is_grey, profile, image.format or "unknown", ()), orientation, notes


def _open(data: bytes, max_pixels: int) -> Image.Image:
    # Our limit applies. Pillow's own, twice this number, would come first only if the caller raised ours above it.
    Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS or 0, max_pixels)
    try:
        return Image.open(io.BytesIO(data), formats=_FORMATS)
    except UnidentifiedImageError as error:
        if known := _name_unsupported(data):
            raise DecodeError(RejectReason.UNSUPPORTED, f"{known} is not supported; convert it to PNG") from error
        if iso_media.is_iso_media(data) and not iso_media.is_cut_off(data):
            raise DecodeError(RejectReason.CORRUPT, "the boxes of the AVIF are damaged") from error
        if data.startswith(_SIGNATURES) or iso_media.is_iso_media(data):
            raise DecodeError(RejectReason.TRUNCATED, f"the header is incomplete ({len(data)} bytes)") from error
        start = data[:16].decode("ascii", "replace").strip()
        raise DecodeError(RejectReason.NOT_AN_IMAGE, f"no known image format; starts with {start!r}") from error


def _name_unsupported(data: bytes) -> str | None:
    """What a file is, if it is whole but of a kind that is not decoded."""
    if data.startswith(b"\xff\xd8"):
        return jpeg.describe_unsupported(data)
    if iso_media.is_iso_media(data):
        kind = iso_media.describe(data)
        return None if kind == "AVIF" else kind
    if data.startswith((b"II*\0", b"MM\0*", b"II+\0")):
        return None if tiff.is_cut_off(data) else tiff.describe(data)
    return unsupported.describe(data)


def _orientation(image: Image.Image, header: png.PngHeader | None) -> int:
    """The EXIF orientation; 1 if Pillow applies it itself."""
    if image.format == "TIFF":
        return 1
    if header is not None and not header.metadata_last:
        return Image.Image.getexif(image).get(_ORIENTATION, 1)  # PNG's own getexif decodes the pixels first
    return image.getexif().get(_ORIENTATION, 1)  # of an AVIF: what its own properties say, as EXIF would


def _pixels(
    data: bytes, image: Image.Image, profile: bytes, header: png.PngHeader | None, notes: list[str]
) -> tuple[np.ndarray, np.ndarray | None]:
    """RGB pixels and alpha as stored, before orientation."""
    if header is not None:
        return _png_pixels(data, image, profile, header, notes)
    if image.format in ("JPEG", "MPO") and image.mode in ("RGB", "L"):
        return colour.to_srgb(jpeg.decode_jpeg(data, notes), profile, image.mode, notes), None
    if image.format in ("JPEG", "MPO") and image.mode == "CMYK":
        inks = 255 - jpeg.decode_jpeg(data, notes, "CMYK")
        return colour.from_pillow(Image.frombytes("CMYK", image.size, inks.tobytes()), profile, notes)
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        tiff.check(image, data)
    elif image.format == "AVIF":
        iso_media.check_avif(data, image.size)
    elif image.format == "WEBP":
        webp.check_end(data)
    image.load()
    if isinstance(image, TiffImagePlugin.TiffImageFile) and image.mode.startswith("I;16"):
        grey = tiff.wide_grey(image, notes)
        return colour.to_srgb(np.repeat(grey[..., None], 3, axis=2), profile, "L", notes), None
    return colour.from_pillow(image, profile, notes)


def _png_pixels(
    data: bytes, image: Image.Image, profile: bytes, header: png.PngHeader, notes: list[str]
) -> tuple[np.ndarray, np.ndarray | None]:
    iso_media.refuse_hdr("PNG", header.transfer)
    if header.bit_depth == 16:
        notes.append("16 bits rounded to 8")
    elif image.mode != "RGB":
        notes.append(f"mode {image.mode}")
    pixels, alpha = png.decode_png(data, header)
    return colour.to_srgb(pixels, profile, "L" if header.is_grey else "RGB", notes), alpha


def _upright(pixels: np.ndarray, orientation: int, notes: list[str]) -> np.ndarray:
    if orientation not in range(2, 9):
        return pixels
    notes.append(f"orientation {orientation}")
    return _orient(pixels, orientation)


def _orient(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Turn pixels upright; the EXIF orientation states where the stored row 0 and column 0 belong."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def _as_reject(error: Exception, data: bytes) -> DecodeError:
    if isinstance(error, DecodeError):
        return error
    if data.startswith(b"\xff\xd8") and (known := jpeg.describe_unsupported(data)):
        return DecodeError(RejectReason.UNSUPPORTED, f"{known} is not supported; convert it to PNG")
    text = " ".join(str(error).split())[:200] or type(error).__name__
    reason = next((reason for words, reason in _SIGNS if any(word in text.lower() for word in words)), None)
    if reason is None and iso_media.is_iso_media(data) and iso_media.is_cut_off(data):
        reason = RejectReason.TRUNCATED
    if reason is RejectReason.UNSUPPORTED and (known := _name_unsupported(data)):
        text = f"{known} is not supported; convert it to PNG"
    reason = reason or RejectReason.CORRUPT
    return DecodeError(reason, text.removeprefix(f"{reason}: "))
