"""Image bytes -> uint8 RGB pixels as a person sees them, or the reason why they cannot be decoded.

EXIF orientation is applied. Transparency is composited onto white, or returned beside the colours for callers that
keep it. Colour profiles and CMYK are converted to sRGB. 16 bits become 8 by rounding, not truncation. Damage of any
kind is a rejection, never grey pixels. Animations and files of several pages are rejected, since it is not known which
frame is meant.
"""

import io
import warnings
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, UnidentifiedImageError

from pipelines.images import colour, fast_codecs
from pipelines.images.rejects import DecodeError, RejectReason

MAX_PIXELS = 2**27
"""Largest image that is decoded: 134 million pixels, 400 MB. A larger one is treated as a decompression bomb."""

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "AVIF", "PPM")
_OTHER_FORMATS = {b"8BPS": "PSD", b"%PDF": "PDF", b"<svg": "SVG", b"\0\0\0\x0cjP": "JPEG 2000"}
_ORIENTATION = 0x0112


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
        except (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError) as error:
            raise _as_reject(error) from error  # Pillow's plugins raise any of these on damaged files


def _decode(data: bytes, max_pixels: int) -> tuple[DecodedPhoto, int, list[str]]:
    image = _open(data, max_pixels)
    width, height = image.size
    if width * height > max_pixels:
        raise DecodeError(RejectReason.TOO_LARGE, f"{width}x{height} is more than {max_pixels} pixels")
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":  # MPO: a camera's photo, followed by a preview
        raise DecodeError(RejectReason.ANIMATED, f"{frames} frames or pages; extract the one that you need")
    notes: list[str] = []
    png = fast_codecs.check_png(data) if image.format == "PNG" else None
    orientation = _orientation(image, png)
    is_grey = image.mode in ("1", "L", "LA", "La") or image.mode.startswith("I;16")
    if png is not None:
        is_grey = png.colour_type in (0, 4)  # Pillow calls 16 bits of grey with alpha RGBA
    profile = image.info.get("icc_profile") or b""
    pixels, alpha = _pixels(data, image, profile, png, notes)
    return DecodedPhoto(pixels, alpha, is_grey, profile, image.format or "unknown", ()), orientation, notes


def _open(data: bytes, max_pixels: int) -> Image.Image:
    # Our limit applies. Pillow's own, twice this number, would come first only if the caller raised ours above it.
    Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS or 0, max_pixels)
    try:
        return Image.open(io.BytesIO(data), formats=_FORMATS)
    except UnidentifiedImageError as error:
        if data.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF8", b"RIFF", b"BM", b"II*\0", b"MM\0*")):
            raise DecodeError(RejectReason.TRUNCATED, f"the header is incomplete ({len(data)} bytes)") from error
        known = next((name for magic, name in _OTHER_FORMATS.items() if data.startswith(magic)), None)
        if data[4:8] == b"ftyp":
            known = "HEIC" if data[8:12] in (b"heic", b"heix", b"mif1") else "ISO media, perhaps a video"
        if known:
            raise DecodeError(RejectReason.UNSUPPORTED, f"{known} is not supported; convert it to PNG") from error
        start = data[:16].decode("ascii", "replace").strip()
        raise DecodeError(RejectReason.NOT_AN_IMAGE, f"no known image format; starts with {start!r}") from error


def _orientation(image: Image.Image, png: fast_codecs.PngHeader | None) -> int:
    """The EXIF orientation; 1 if Pillow applies it itself."""
    if image.format in ("TIFF", "AVIF"):
        return 1
    if png is not None and not png.metadata_last:
        return Image.Image.getexif(image).get(_ORIENTATION, 1)  # PNG's own getexif decodes the pixels first
    return image.getexif().get(_ORIENTATION, 1)


def _pixels(
    data: bytes, image: Image.Image, profile: bytes, png: fast_codecs.PngHeader | None, notes: list[str]
) -> tuple[np.ndarray, np.ndarray | None]:
    """RGB pixels and alpha as stored, before orientation."""
    if image.format in ("JPEG", "MPO") and image.mode in ("RGB", "L"):
        pixels = fast_codecs.decode_jpeg(data, notes)
        return colour.to_srgb(pixels, profile, image.mode, notes), None
    if png is not None:
        if png.bit_depth == 16:
            notes.append("16 bits rounded to 8")
            pixels, alpha = fast_codecs.decode_png_16(data, png)
            return colour.to_srgb(pixels, profile, "L" if png.colour_type in (0, 4) else "RGB", notes), alpha
        if image.mode == "RGB" and "transparency" not in image.info:
            return colour.to_srgb(fast_codecs.decode_png_rgb(data), profile, "RGB", notes), None
    if image.format == "TIFF" and image.mode != "I;16" and max(image.tag_v2.get(258, (8,))) > 8:  # type: ignore
        raise DecodeError(RejectReason.UNSUPPORTED, "TIFF with more than 8 bits a channel; convert it to PNG")
    image.load()
    return colour.from_pillow(image, profile, notes)


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


def _as_reject(error: Exception) -> DecodeError:
    if isinstance(error, DecodeError):
        return error
    text = " ".join(str(error).split())[:200] or type(error).__name__
    cut_off = ("truncated", "premature end", "end of stream", "unexpected end", "not enough", "eof")
    reason = RejectReason.TRUNCATED if any(word in text.lower() for word in cut_off) else RejectReason.CORRUPT
    if "too large" in text.lower():  # compressed text or profiles that would inflate to gigabytes
        reason = RejectReason.TOO_LARGE
    return DecodeError(reason, text.removeprefix(f"{reason}: "))
