"""Random flips, quarter turns and blur: what they change, how often, and that a seed decides them."""

import numpy as np
import torch

from pipelines.ingest.augmentation import draw_variation, mirror, turn, vary_low
from sr3core.hyperparameters import AugmentationConfig
from sr3core.images.resize import blur


def test_half_of_the_pairs_are_mirrored_and_a_seed_decides_which():
    drawn = [draw_variation(AugmentationConfig(), seed) for seed in range(400)]
    assert 150 < sum(variation.flip for variation in drawn) < 250
    assert all(variation.sigma == 0 for variation in drawn)
    assert drawn == [draw_variation(AugmentationConfig(), seed) for seed in range(400)]
    assert not any(draw_variation(AugmentationConfig(flip=False), seed).flip for seed in range(100))


def test_a_flip_mirrors_both_images():
    images = torch.arange(2 * 4 * 4 * 3, dtype=torch.uint8).reshape(2, 4, 4, 3)
    mirrored = mirror(images, torch.tensor([True, False]))
    np.testing.assert_array_equal(mirrored[0], images[0].numpy()[:, ::-1])
    np.testing.assert_array_equal(mirrored[1], images[1])
    low = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    low.setflags(write=False)  # as WebP records come
    for seed in range(20):
        variation = draw_variation(AugmentationConfig(), seed)
        np.testing.assert_array_equal(vary_low(low, variation), low[:, ::-1] if variation.flip else low)


def test_quarter_turns_are_drawn_evenly_beside_the_flips_and_turn_anticlockwise():
    plain = [draw_variation(AugmentationConfig(), seed) for seed in range(800)]
    drawn = [draw_variation(AugmentationConfig(quarter_turns=True), seed) for seed in range(800)]
    assert all(variation.turns == 0 for variation in plain)
    assert [(v.flip, v.sigma) for v in drawn] == [(v.flip, v.sigma) for v in plain]
    for turns in range(4):
        for flip in (False, True):
            assert 60 < sum((v.turns, v.flip) == (turns, flip) for v in drawn) < 145
    images = torch.arange(4 * 3 * 3 * 3, dtype=torch.uint8).reshape(4, 3, 3, 3)
    for number, image in enumerate(turn(images, torch.tensor([0, 1, 2, 3]))):
        np.testing.assert_array_equal(image, np.rot90(images[number].numpy(), number))


def test_blur_touches_as_many_low_resolution_images_as_it_should():
    low = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    config = AugmentationConfig(flip=False, blur_probability=0.5, blur_sigma_max=2.0)
    drawn = [draw_variation(config, seed) for seed in range(200)]
    assert 60 < sum(variation.sigma > 0 for variation in drawn) < 140
    for variation in drawn:
        np.testing.assert_array_equal(vary_low(low, variation), blur(low, variation.sigma))
    assert np.diff(blur(low, 2.0).astype(float), axis=0).std() < np.diff(low.astype(float), axis=0).std() / 3
