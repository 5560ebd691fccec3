"""The samples of a shard: KEY.hr.png, KEY.lr.png, KEY.json, and KEY.cls if labelled.

Blurred variants are KEY.lr_blur0.png and so on, their sigmas in KEY.json; with image_format webp, .png becomes .webp.
"""

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from pipelines.images.fast_png import decode_png_rgb, encode_png
from pipelines.settings.prepare import PrepareConfig
from pipelines.settings.stages import StageSpec
from sr3core import strict_json
from sr3core.errors import DataError
from sr3core.images.pixels import largest_central_crop
from sr3core.images.resize import blur, resize_area, resize_bicubic
from sr3core.randomness import derive_seed
from sr3core.sizes import fits_in

_KEY_DIGITS = 20


@dataclass(frozen=True, slots=True)
class Record:
    """One training sample."""

    key: str
    """Stable hash of the source's name and bytes."""
    high: np.ndarray
    """Target, uint8 (H, W, 3)."""
    low: np.ndarray | None
    """Low-resolution input, uint8 (h, w, 3); None for a base model."""
    label: int | None
    """Class index, None if unlabelled."""
    meta: dict[str, Any]
    """Content of KEY.json: name, size, format and notes of the source image."""
    low_blurred: tuple[np.ndarray, ...] = field(default=())
    """Blurred variants of low, by the sigmas in meta["blur_sigmas"]."""


def content_digest(data: bytes) -> str:
    """SHA-256 of an image file."""
    return hashlib.sha256(data).hexdigest()


def record_key(name: str, digest: str) -> str:
    """Key of a record: a hash of the name relative to the source and of the bytes' digest."""
    return hashlib.sha256(name.encode("utf-8", "surrogateescape") + b"\0" + digest.encode()).hexdigest()[:_KEY_DIGITS]


def make_pixels(pixels: np.ndarray, stage: StageSpec) -> tuple[np.ndarray, np.ndarray | None]:
    """Make (high, low) of a stage from RGB (H, W, 3), as section 4 describes; low is None for a base model.

    The largest central crop of the high size's shape is area-resized to it, and that is resized to the low size by
    antialiased bicubic interpolation.
    """
    assert fits_in(stage.high_size, pixels.shape[:2]), "images that are too small are rejected before"
    high = resize_area(largest_central_crop(pixels, stage.high_size), stage.high_size)
    return high, None if stage.low_size is None else resize_bicubic(high, stage.low_size)


def blur_sigmas(config: PrepareConfig, key: str) -> list[float]:
    """Blur of a record's stored variants: sigmas from U(0, blur_sigma_max), a function of (seed, key, variant)."""
    draws = (derive_seed(config.seed, "bake-blur", key, index) / 2**63 for index in range(config.blur_variants))
    return [round(draw * config.blur_sigma_max, 4) for draw in draws]


def encode_record(
    config: PrepareConfig, key: str, high: np.ndarray, low: np.ndarray | None, label: int | None, meta: dict[str, Any]
) -> dict[str, bytes]:
    """Encode a sample to its members, in the order in which they are written."""
    kind = config.image_format
    members = {f"hr.{kind}": encode_image(high, kind)}
    if low is not None:
        members[f"lr.{kind}"] = encode_image(low, kind)
        sigmas = blur_sigmas(config, key)
        for index, sigma in enumerate(sigmas):
            members[f"lr_blur{index}.{kind}"] = encode_image(blur(low, sigma), kind)
        if sigmas:
            meta = {**meta, "blur_sigmas": sigmas}
    if label is not None:
        members["cls"] = str(label).encode()
    members["json"] = strict_json.dumps(meta, sort_keys=True).encode()
    return members


def read_record(key: str, members: Mapping[str, bytes]) -> Record:
    """Decode a sample.

    Args:
        key: key of the sample.
        members: bytes of its members, by name without the key.

    Raises:
        DataError: a member is missing or damaged.
    """
    high = _image(key, "hr", members)
    if high is None:
        raise DataError(f"record {key}: it has no hr.png or hr.webp among {sorted(members)}; is this an sr3 shard?")
    blurred = []
    while (variant := _image(key, f"lr_blur{len(blurred)}", members)) is not None:
        blurred.append(variant)
    try:
        meta = strict_json.loads(members["json"]) if "json" in members else {}
        label = int(members["cls"]) if "cls" in members else None
    except ValueError as error:
        raise DataError(f"record {key}: {error}; run `sr3 verify` on its folder") from error
    return Record(key, high, _image(key, "lr", members), label, meta, tuple(blurred))


def encode_image(image: np.ndarray, kind: str) -> bytes:
    """Encode uint8 RGB (H, W, 3) losslessly, as "png" or "webp"."""
    if kind == "png":
        return encode_png(image)
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "WEBP", lossless=True, method=0, quality=0, exact=True)
    return buffer.getvalue()


def _image(key: str, name: str, members: Mapping[str, bytes]) -> np.ndarray | None:
    try:
        if (data := members.get(f"{name}.png")) is not None:
            pixels = decode_png_rgb(data)
        elif (data := members.get(f"{name}.webp")) is not None:
            pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        else:
            return None
    except (OSError, ValueError) as error:
        raise DataError(f"record {key}: {name} is damaged ({error}); run `sr3 verify` on its folder") from error
    if pixels.ndim != 3 or pixels.shape[2] != 3:
        raise DataError(f"record {key}: {name} is not RGB but of shape {pixels.shape}")
    return pixels
