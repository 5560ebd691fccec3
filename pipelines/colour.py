"""Colour: profiles, CMYK, grey, palettes and transparency -> sRGB uint8 (H, W, 3)."""

import io
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

from pipelines.rejects import DecodeError, RejectReason

_MODE_OF_SPACE = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK", "Lab": "LAB"}
_WHITE = 255


def to_srgb(pixels: np.ndarray, profile: bytes, mode: str, notes: list[str]) -> np.ndarray:
    """Convert RGB (H, W, 3) from an embedded profile to sRGB; grey images (mode "L") ride in three equal channels."""
    if not profile:
        return pixels
    image = Image.fromarray(pixels[..., 0] if mode == "L" else pixels)
    return np.asarray(_convert(image, profile, notes).convert("RGB"))


def composite(pixels: np.ndarray, alpha: np.ndarray | None, notes: list[str]) -> np.ndarray:
    """Put RGB (H, W, 3) with alpha (H, W), 255 opaque, onto white, rounded."""
    if alpha is None or (alpha == 255).all():
        return pixels
    notes.append("transparency on white")
    weight = alpha[..., None].astype(np.uint32)
    mixed = pixels * weight + _WHITE * (255 - weight)
    return ((mixed + 127) // 255).astype(np.uint8)


def rgb_from_pillow(image: Image.Image, profile: bytes, notes: list[str]) -> np.ndarray:
    """Convert a loaded image of any mode that has a meaning as colour.

    Raises:
        DecodeError: it has none, such as 32-bit numbers.
    """
    mode = image.mode
    if mode.startswith("I;16"):
        notes.append("16 bits rounded to 8")
        wide = np.asarray(image).astype(np.uint32)
        return to_srgb(_grey((wide + 128) // 257), profile, "L", notes)
    if mode not in ("1", "L", "P", "RGB", "RGBA", "LA", "PA", "La", "RGBa", "CMYK", "YCbCr", "LAB", "RGBX"):
        raise DecodeError(RejectReason.UNSUPPORTED, f"pixels of mode {mode} have no defined colour; save as 8-bit RGB")
    if mode != "RGB":
        notes.append(f"mode {mode}")
    if mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        straight = np.asarray(image.convert("RGBA"))
        rgb = to_srgb(straight[..., :3], profile, "L" if mode in ("LA", "La") else "RGB", notes)
        return composite(rgb, straight[..., 3], notes)
    if mode in ("CMYK", "LAB"):
        return np.asarray(_convert(image, profile, notes).convert("RGB"))
    return to_srgb(np.asarray(image.convert("RGB")), profile, "L" if mode in ("1", "L") else "RGB", notes)


def _grey(values: np.ndarray) -> np.ndarray:
    return np.repeat(values.astype(np.uint8)[..., None], 3, axis=2)


def _convert(image: Image.Image, profile: bytes, notes: list[str]) -> Image.Image:
    """Apply a profile; one that is damaged or for other channels is ignored, as browsers do, and noted."""
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
    """The transform to sRGB; "srgb" where it would change nothing, None where the profile is of no use."""
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


def _colour_cube() -> np.ndarray:
    levels = np.linspace(0, 255, 9).round().astype(np.uint8)
    return np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(27, 27, 3)
