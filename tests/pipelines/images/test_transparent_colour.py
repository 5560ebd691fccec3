"""Colour under transparent pixels."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipelines.images import colour


@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 2**32 - 1))
def test_colour_under_transparent_pixels_does_not_matter(height: int, width: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    alpha = random.choice(np.array([0, 0, 80, 255], np.uint8), (height, width))
    pixels, others = (random.integers(0, 256, (height, width, 3), dtype=np.uint8) for _ in range(2))
    others[alpha > 0] = pixels[alpha > 0]
    filled = colour.fill_transparent(pixels, alpha)
    np.testing.assert_array_equal(filled, colour.fill_transparent(others, alpha))
    np.testing.assert_array_equal(filled[alpha > 0], pixels[alpha > 0])
    if (alpha > 0).any():
        visible = pixels[alpha > 0]
        assert (filled.min(axis=(0, 1)) >= visible.min(axis=0)).all()
        assert (filled.max(axis=(0, 1)) <= visible.max(axis=0)).all()


def test_a_red_disc_on_transparent_black_gets_no_dark_rim() -> None:
    y, x = np.mgrid[0:32, 0:32]
    alpha = np.where((x - 15) ** 2 + (y - 15) ** 2 < 100, 255, 0).astype(np.uint8)
    pixels = np.where(alpha[..., None] > 0, (200, 20, 20), 0).astype(np.uint8)
    assert (colour.fill_transparent(pixels, alpha) == (200, 20, 20)).all()
