"""PNG files for people to look at, as small as Pillow makes them; fast_png trades size for speed in shards."""

import io

import numpy as np
from PIL import Image


def encode_compact_png(pixels: np.ndarray) -> bytes:
    """Encode uint8 (H, W, 3), or (H, W) for grey, as a PNG that holds nothing but the pixels."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()
