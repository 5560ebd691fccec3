"""Writing upscaled photos: sRGB strips -> the source's colours, grey or transparency -> PNG, JPEG or WebP.

A PNG is written strip by strip and needs no room for the image; JPEG and WebP hold it in memory. Metadata other than
the colour profile is dropped: sizes, previews and orientation would be wrong, and a location would be disclosed.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import BinaryIO, Literal

import numpy as np
from PIL import Image

from pipelines.images import colour
from pipelines.images.decoding import DecodedPhoto
from pipelines.images.fast_png import PngWriter
from pipelines.images.rejects import DecodeError, RejectReason

PhotoFormat = Literal["png", "jpeg", "webp"]

ENDINGS: dict[str, str] = {"png": "png", "jpeg": "jpg", "webp": "webp"}
"""File name ending of each format."""

DEFAULT_QUALITY = 95
"""Quality of JPEG and WebP: visually near lossless, at a fifth of PNG's size."""

_TOLD = ("16 bits", "orientation", "stray bytes", "mode CMYK", "mode LAB")
"""The decoder's notes that the output does not undo; it does restore its source's colours and transparency."""

_LONGEST_SIDE = {"jpeg": 65_535, "webp": 16_383, "png": 2**31 - 1}


@dataclass(frozen=True, slots=True)
class PhotoForm:
    """What a written photo holds."""

    size: tuple[int, int]
    """(height, width)."""
    mode: Literal["RGB", "L"]
    """Colours or grey."""
    has_alpha: bool
    """Whether there is an alpha channel too."""
    on_white: bool
    """Whether the transparency is composited onto white."""
    profile: bytes
    """The colour profile to convert to and to embed; empty is sRGB."""
    notes: tuple[str, ...]
    """What was converted or dropped."""

    @property
    def num_channels(self) -> int:
        """Channels with alpha."""
        return (1 if self.mode == "L" else 3) + self.has_alpha

    def convert(self, rgb: np.ndarray, alpha: np.ndarray | None) -> np.ndarray:
        """Some rows, sRGB uint8 (rows, W, 3) and alpha (rows, W), as they are written: (rows, W, num_channels)."""
        if self.on_white:
            rgb = colour.composite(rgb, alpha, [])
        pixels = colour.from_srgb(rgb, self.profile, self.mode)
        return np.dstack([pixels, alpha]) if self.has_alpha and alpha is not None else pixels


def form_of(photo: DecodedPhoto, size: tuple[int, int], kind: PhotoFormat) -> PhotoForm:
    """What a format can keep of a photo: grey, transparency and colour profile, where the format supports them.

    Args:
        photo: what is upscaled.
        size: (height, width) of the output.
        kind: the format.

    Raises:
        DecodeError: the output is larger than the format allows.
    """
    height, width = size
    if max(height, width) > _LONGEST_SIDE[kind]:
        raise DecodeError(
            RejectReason.TOO_LARGE,
            f"upscaled it is {width}x{height}, but {kind} allows at most {_LONGEST_SIDE[kind]} pixels a side; use png",
        )
    mode: Literal["RGB", "L"] = "L" if photo.is_grey and kind != "webp" else "RGB"
    usable = colour.transform_from_srgb(photo.profile, mode) is not None
    notes = [note for note in photo.notes if note.startswith(_TOLD)]
    if photo.profile and not usable:
        notes.append("colour profile dropped: the output is sRGB")
    on_white = photo.alpha is not None and kind == "jpeg"
    if on_white:
        notes.append("transparency on white")
    has_alpha = photo.alpha is not None and not on_white
    profile = photo.profile if usable else b""
    return PhotoForm(size, mode, has_alpha, on_white, profile, tuple(notes))


def write_photo(
    file: BinaryIO, form: PhotoForm, strips: Iterable[np.ndarray], kind: PhotoFormat, quality: int | None
) -> None:
    """Encode rows of form.num_channels channels, uint8 (rows, W, C), from the top down."""
    if kind == "png":
        writer = PngWriter(file, *form.size, form.num_channels, form.profile)
        for strip in strips:
            writer.write(strip)
        writer.close()
        return
    pixels = np.empty((*form.size, form.num_channels), np.uint8)
    top = 0
    for strip in strips:
        pixels[top : top + len(strip)] = strip
        top += len(strip)
    image = Image.fromarray(pixels[..., 0] if form.num_channels == 1 else pixels)
    options = {"subsampling": 0} if kind == "jpeg" else {"exact": True}
    image.save(file, kind, quality=quality or DEFAULT_QUALITY, icc_profile=form.profile or None, **options)
