"""Fine detail and JPEG's blocks, measured on photos that were enlarged, blurred and compressed."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sr3core.images.resize import blur
from sr3core.images.sharpness import MAX_BLOCK_STEP, MIN_DETAIL, block_step, fine_detail


@pytest.fixture(scope="module")
def pictures(photos: Path) -> list[np.ndarray]:
    """Photos of 128 x 128 pixels, shrunk, so that they are sharp and without blocks."""
    paths = sorted(photos.glob("*.jpg"))[:16]
    return [np.asarray(Image.open(path).convert("RGB").resize((128, 128), Image.Resampling.BOX)) for path in paths]


def median_of(measure, images: list[np.ndarray]) -> float:
    return float(np.median([value for image in images if (value := measure(image)) is not None]))


def enlarged(image: np.ndarray, times: float) -> np.ndarray:
    side = int(128 / times)
    small = Image.fromarray(image).resize((side, side), Image.Resampling.BOX)
    return np.asarray(small.resize((128, 128), Image.Resampling.BICUBIC))


def as_jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def test_what_was_enlarged_or_blurred_lacks_fine_detail(pictures: list[np.ndarray]) -> None:
    sharp = median_of(fine_detail, pictures)
    twice = median_of(fine_detail, [enlarged(image, 2) for image in pictures])
    soft = median_of(fine_detail, [blur(image, 1.5) for image in pictures])
    assert sharp > MIN_DETAIL + 4
    assert max(twice, soft) < MIN_DETAIL
    assert sharp - twice > 8


def test_detail_does_not_depend_on_brightness_and_flat_pictures_have_none(pictures: list[np.ndarray]) -> None:
    image = next(image for image in pictures if fine_detail(image) is not None)
    darker = fine_detail(image // 2)
    assert darker is not None
    assert darker == pytest.approx(fine_detail(image), abs=1.0)
    assert fine_detail(np.full((64, 64, 3), 90, np.uint8)) is None
    assert fine_detail(image[:20, :20]) is None


@pytest.mark.parametrize("offset", [0, 3])
def test_blocks_are_found_wherever_they_begin(pictures: list[np.ndarray], offset: int) -> None:
    compressed = [as_jpeg(image, 20)[offset:, offset:] for image in pictures]
    assert median_of(block_step, compressed) > MAX_BLOCK_STEP + 0.2
    assert median_of(block_step, [as_jpeg(image, 95) for image in pictures]) < MAX_BLOCK_STEP
    assert block_step(np.full((64, 64, 3), 90, np.uint8)) == 1.0
