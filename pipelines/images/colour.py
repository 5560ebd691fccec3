"""Colour: profiles, CMYK, greyscale, palettes and transparency -> sRGB uint8 (H, W, 3), and back to a profile."""

import io
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

from pipelines.images.rejects import DecodeError, RejectReason

_MODE_OF_SPACE = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK", "Lab": "LAB"}
_WHITE = 255


def to_srgb(pixels: np.ndarray, profile: bytes, mode: str, notes: list[str]) -> np.ndarray:
    """Convert RGB (H, W, 3) from an embedded profile to sRGB; a grey image (mode "L") has three equal channels."""
    if not profile:
        return pixels
    image = Image.fromarray(pixels[..., 0] if mode == "L" else pixels)
    return np.asarray(_convert(image, profile, notes).convert("RGB"))


def composite(pixels: np.ndarray, alpha: np.ndarray | None, notes: list[str]) -> np.ndarray:
    """Composite RGB (H, W, 3) with alpha (H, W), where 255 is opaque, onto white, rounded."""
    if alpha is None or (alpha == 255).all():
        return pixels
    notes.append("transparency on white")
    weight = alpha[..., None].astype(np.uint32)
    mixed = pixels * weight + _WHITE * (255 - weight)
    return ((mixed + 127) // 255).astype(np.uint8)


def fill_transparent(pixels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Give fully transparent pixels of RGB (H, W, 3) the colour of the nearest visible ones.

    Their stored colour is arbitrary, often black; a filter that mixes neighbours would turn it into a dark fringe.
    """
    weight = alpha[..., None].astype(np.float32) / 255
    filled = np.rint(_pull_push(pixels * weight, weight)).astype(np.uint8)
    return np.where(alpha[..., None] == 0, filled, pixels)


def _pull_push(sums: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Weighted sums (H, W, 3) over weights (H, W, 1); where the weight is 0, the value of the next coarser level."""
    known = weight > 0
    mean = sums / np.where(known, weight, 1)
    height, width = weight.shape[:2]
    if known.all() or height == width == 1:
        return mean
    coarse = _pull_push(_sum_of_fours(sums), _sum_of_fours(weight))
    return np.where(known, mean, coarse.repeat(2, axis=0).repeat(2, axis=1)[:height, :width])


def _sum_of_fours(values: np.ndarray) -> np.ndarray:
    height, width, channels = values.shape
    even = np.pad(values, ((0, height % 2), (0, width % 2), (0, 0)))
    return even.reshape(-(-height // 2), 2, -(-width // 2), 2, channels).sum(axis=(1, 3))


def from_pillow(image: Image.Image, profile: bytes, notes: list[str]) -> tuple[np.ndarray, np.ndarray | None]:
    """RGB (H, W, 3) and alpha (H, W) of a loaded image, of any mode that has a defined colour.

    Raises:
        DecodeError: its mode has none, such as 32-bit integers.
    """
    mode = image.mode
    if mode == "I" and image.format == "PPM":  # whatever its largest value, Pillow scales it to 65535
        notes.append("16 bits rounded to 8")
        return to_srgb(_grey((np.asarray(image).astype(np.uint32) + 128) // 257), profile, "L", notes), None
    if mode not in ("1", "L", "P", "RGB", "RGBA", "LA", "PA", "La", "RGBa", "CMYK", "YCbCr", "LAB", "RGBX"):
        raise DecodeError(RejectReason.UNSUPPORTED, f"pixels of mode {mode} have no defined colour; save as 8-bit RGB")
    if mode != "RGB":
        notes.append(f"mode {mode}")
    if mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        straight = np.asarray((image.convert("LA") if mode == "La" else image).convert("RGBA"))
        rgb = to_srgb(straight[..., :3], profile, "L" if mode in ("LA", "La") else "RGB", notes)
        return rgb, straight[..., 3]
    if mode in ("CMYK", "LAB"):
        return np.asarray(_convert(image, profile, notes).convert("RGB")), None
    return to_srgb(np.asarray(image.convert("RGB")), profile, "L" if mode in ("1", "L") else "RGB", notes), None


def _grey(values: np.ndarray) -> np.ndarray:
    return np.repeat(values.astype(np.uint8)[..., None], 3, axis=2)


def _convert(image: Image.Image, profile: bytes, notes: list[str]) -> Image.Image:
    """Apply a profile; a damaged one, or one for other channels, is ignored as browsers do, and noted."""
    if not profile:
        return image
    transform = _transform(profile, image.mode)
    if transform is None:
        notes.append("colour profile ignored")
        return image
    if transform == "srgb":
        return image
    notes.append("colour profile converted to sRGB")
    converted = ImageCms.applyTransform(image, transform)  # type: ignore[arg-type]
    assert converted is not None
    return converted


@lru_cache(maxsize=16)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | str | None:
    """The transform to sRGB; "srgb" if it would change nothing, None if the profile is unusable."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space = source.profile.xcolor_space.strip()  # type: ignore[attr-defined]
        if _MODE_OF_SPACE.get(space) != mode:
            return None
        target = ImageCms.createProfile("sRGB")
        transform = ImageCms.buildTransform(source, target, mode, "RGB", ImageCms.Intent.RELATIVE_COLORIMETRIC)
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None
    if mode == "RGB":
        probe = Image.fromarray(_colour_cube())
        after = np.asarray(ImageCms.applyTransform(probe, transform)).astype(int)
        if np.abs(after - np.asarray(probe)).max() <= 1:
            return "srgb"
    return transform


@lru_cache(maxsize=16)
def transform_from_srgb(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | str | None:
    """The transform from sRGB pixels back to a profile, for images of `mode` "RGB" or "L".

    "srgb" if it would change nothing; None if there is no profile, or it is unusable.
    """
    there = _transform(profile, mode) if profile else None
    if there is None or there == "srgb":
        return there
    try:
        target = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        source = ImageCms.createProfile("sRGB")
        return ImageCms.buildTransform(source, target, "RGB", mode, ImageCms.Intent.RELATIVE_COLORIMETRIC)
    except (
        ImageCms.PyCMSError,
        OSError,
        ValueError,
    ):  # some profiles, such as a scanner's, describe one direction only
        return None


def from_srgb(pixels: np.ndarray, profile: bytes, mode: str) -> np.ndarray:
    """Convert sRGB uint8 (H, W, 3) to `mode`, (H, W, 3) or (H, W, 1) for "L", and to the profile if it is usable."""
    image = Image.fromarray(pixels)
    transform = transform_from_srgb(profile, mode)
    if transform is None or transform == "srgb":
        converted = image.convert(mode)
    else:
        converted = ImageCms.applyTransform(image, transform)  # type: ignore[arg-type]
        assert converted is not None
    return np.asarray(converted).reshape(*pixels.shape[:2], -1)


def _colour_cube() -> np.ndarray:
    levels = np.linspace(0, 255, 9).round().astype(np.uint8)
    return np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(27, 27, 3)
