"""Shifts found by phase correlation: known ones on photos, through degradations, and none where there is none."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sr3core.images.alignment import MIN_CERTAINTY, MIN_CORRELATION, find_shift
from sr3core.images.resize import resize_area, resize_bicubic


@pytest.fixture(scope="module")
def pictures(photos: Path) -> list[np.ndarray]:
    """Photos of 256 x 256 pixels."""
    return [
        np.asarray(Image.open(path).convert("RGB").resize((256, 256))) for path in sorted(photos.glob("*.jpg"))[:12]
    ]


def as_jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def test_a_copy_is_not_shifted_and_a_rolled_one_is_as_far_as_it_was_rolled(pictures: list[np.ndarray]) -> None:
    for picture in pictures:
        small = resize_area(picture, 64)
        same = find_shift(small, small)
        assert same is not None
        assert max(abs(same.down), abs(same.right)) < 1e-6
        assert same.certainty == pytest.approx(1, abs=1e-4)
        assert same.correlation == pytest.approx(1)
        moved = find_shift(small, np.roll(small, (3, -5), (0, 1)))
        assert moved is not None
        assert (moved.down, moved.right) == (pytest.approx(3, abs=0.2), pytest.approx(-5, abs=0.2))


def test_shifts_of_a_fraction_of_a_pixel_are_found_through_jpeg_and_noise(pictures: list[np.ndarray]) -> None:
    """A roll of three high-resolution pixels is 0.75 low-resolution ones."""
    generator, found = np.random.default_rng(0), []
    for picture in pictures:
        low = resize_bicubic(np.roll(picture, 3, axis=0), 64).astype(float)
        noisy = np.clip(low + generator.normal(0, 10, low.shape), 0, 255).astype(np.uint8)
        found.append(find_shift(resize_area(picture, 64), as_jpeg(noisy, 60)))
    sure = [shift for shift in found if shift and shift.certainty >= MIN_CERTAINTY]
    assert len(sure) >= 10
    np.testing.assert_allclose([shift.down for shift in sure], 0.75, atol=0.2)
    np.testing.assert_allclose([shift.right for shift in sure], 0, atol=0.2)


def test_other_pictures_are_neither_certain_nor_correlated(pictures: list[np.ndarray]) -> None:
    pairs = zip(pictures, pictures[1:] + pictures[:1], strict=True)
    found = [find_shift(resize_area(one, 64), resize_area(other, 64)) for one, other in pairs]
    alike = [s for s in found if s and (s.certainty >= MIN_CERTAINTY or s.correlation >= MIN_CORRELATION)]
    assert len(alike) <= 1


def test_sides_need_not_be_equal_and_flat_pictures_are_not_judged(pictures: list[np.ndarray]) -> None:
    part = resize_area(pictures[0][:151, :233], (37, 58))
    moved = find_shift(part, np.roll(part, -2, axis=1))
    assert moved is not None
    assert moved.right == pytest.approx(-2, abs=0.2)
    grey = np.full((40, 40, 3), 128, np.uint8)
    assert find_shift(grey, grey) is None
    assert find_shift(resize_area(pictures[0], 40), grey) is None
