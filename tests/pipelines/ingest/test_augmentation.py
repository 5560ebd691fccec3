"""Random flips and blur: what they change, how often, and that a seed decides them."""

import numpy as np

from pipelines.ingest.augmentation import augment
from pipelines.shards.records import Record
from sr3core.hyperparameters import AugmentationConfig
from sr3core.images.resize import blur


def record(high, low):
    return Record(key="k", high=high, low=low, label=None, meta={})


def test_flips_mirror_both_images_half_of_the_time():
    high, low = np.arange(4 * 4 * 3, dtype=np.uint8).reshape(4, 4, 3), np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    high.setflags(write=False)  # as WebP records come
    flipped = 0
    for seed in range(400):
        new_low, new_high = augment(record(high, low), AugmentationConfig(), seed)
        mirrored = not np.array_equal(new_high, high)
        flipped += mirrored
        np.testing.assert_array_equal(new_high, high[:, ::-1] if mirrored else high)
        np.testing.assert_array_equal(new_low, low[:, ::-1] if mirrored else low)
    assert 150 < flipped < 250


def test_blur_touches_the_low_resolution_image_alone():
    generator = np.random.default_rng(0)
    high, low = (generator.integers(0, 256, (size, size, 3), dtype=np.uint8) for size in (16, 8))
    config = AugmentationConfig(flip=False, blur_probability=0.5, blur_sigma_max=2.0)
    blurred = 0
    for seed in range(200):
        new_low, new_high = augment(record(high, low), config, seed)
        np.testing.assert_array_equal(new_high, high)
        assert new_low is not None
        blurred += not np.array_equal(new_low, low)
        np.testing.assert_array_equal(augment(record(high, low), config, seed)[0], new_low)
    assert 60 < blurred < 140
    assert np.diff(blur(low, 2.0).astype(float), axis=0).std() < np.diff(low.astype(float), axis=0).std() / 3


def test_a_base_models_images_are_flipped_and_nothing_else():
    high = np.arange(4 * 4 * 3, dtype=np.uint8).reshape(4, 4, 3)
    varied = [augment(record(high, None), AugmentationConfig(), seed) for seed in range(400)]
    assert all(low is None for low, _ in varied)
    mirrored = [bool((image == high[:, ::-1]).all()) for _, image in varied]
    assert all(flipped or bool((image == high).all()) for flipped, (_, image) in zip(mirrored, varied, strict=True))
    assert 150 < sum(mirrored) < 250
