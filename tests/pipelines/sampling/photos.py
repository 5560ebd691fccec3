"""Random photos and their files."""

import io
from pathlib import Path

import numpy as np
from PIL import Image


def picture(seed: int, height: int, width: int, channels: int = 3) -> Image.Image:
    """Noise of 1 (grey) to 4 channels."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return Image.fromarray(pixels[..., 0] if channels == 1 else pixels)


def saved(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    """An image's file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def outputs(folder: Path) -> dict[str, bytes]:
    """Images and the records of what they were made of."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
