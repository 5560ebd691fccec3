"""Crops: places that are drawn by number alone, and enlarged inputs that are those of whole images."""

from itertools import product

import pytest
import torch

from sr3core.images.crops import draw_corner, enlarge
from sr3core.images.resize import upsample_bicubic
from sr3core.randomness import keyed_generator


def test_every_place_is_as_likely_as_any_other_and_lies_on_whole_pixels_of_the_input():
    drawn = [draw_corner(24, 16, 4, seed=1, step=2, position=position) for position in range(9000)]
    counts = {place: drawn.count(place) for place in set(drawn)}
    assert counts.keys() == set(product((0, 4, 8), repeat=2))
    assert all(abs(count - 1000) < 150 for count in counts.values()), "five standard deviations"


def test_a_place_depends_on_seed_step_and_position():
    places = {
        (seed, step, position): draw_corner(1024, 256, 4, seed, step, position)
        for seed, step, position in product(range(3), repeat=3)
    }
    assert len(set(places.values())) > 24
    assert places == {key: draw_corner(1024, 256, 4, *key) for key in reversed(places)}


@pytest.mark.parametrize(("low", "high", "crop", "unit"), [(16, 64, 32, 4), (25, 40, 16, 8)])
def test_a_crops_input_is_the_whole_images_to_the_last_bit(low, high, crop, unit):
    images = torch.rand(5, 3, low, low, generator=keyed_generator(0, "low")) * 2 - 1
    corners = [draw_corner(high, crop, unit, 0, 0, position) for position in range(5)]
    assert len(set(corners)) > 1
    whole = upsample_bicubic(images, high)
    windows = enlarge(images, high, corners, crop)
    for image, window, (top, left) in zip(whole, windows, corners, strict=True):
        assert torch.equal(window, image[:, top : top + crop, left : left + crop])
    assert torch.equal(enlarge(images, high, (), high), whole)
