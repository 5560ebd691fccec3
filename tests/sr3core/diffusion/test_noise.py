"""Noise as a function: the published answers of Philox, the normal distribution, and the same values wherever read."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from sr3core.diffusion.noise import ImageNoise, NoiseField, window_noise
from sr3core.diffusion.philox import normal_from_words, philox

ONES = 0xFFFFFFFF


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((ONES, ONES, ONES, ONES), (ONES, ONES), (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_gives_the_answers_that_its_authors_publish(counter, key, words):
    """kat_vectors of Random123, philox4x32 with 10 rounds."""
    found = philox([torch.tensor(word) for word in counter], [torch.tensor(word) for word in key])
    assert tuple(map(int, found)) == words


def test_uniform_words_become_normal_values_in_closed_form():
    """u = 2^-32 (the smallest), 1/2 and 1; angles of 0, a quarter and a half turn."""
    words = [torch.tensor(value) for value in (0, 0, 2**31 - 1, 2**30)]
    expected = [np.sqrt(2 * 32 * np.log(2)), 0, 0, np.sqrt(2 * np.log(2))]
    assert normal_from_words(words).tolist() == pytest.approx(expected, abs=1e-6)
    last = normal_from_words([torch.tensor(value) for value in (ONES, 0, ONES, 2**31)])
    assert last.tolist() == [0, 0, 0, 0]  # log 1


def test_noise_is_standard_normal():
    values = NoiseField(1).read(0, 0, 0, (3, 512, 512)).flatten().double().numpy()
    assert stats.kstest(values, "norm").pvalue > 0.001
    assert abs(values.mean()) < 5 / len(values) ** 0.5
    assert abs(values.var() - 1) < 5 * (2 / len(values)) ** 0.5
    assert abs((values**4).mean() - 3) < 5 * (96 / len(values)) ** 0.5


def test_noise_is_another_for_every_seed_draw_channel_and_place():
    """Correlations of 4,096 values each: neighbours within a counter, across counters, rows, channels, draws, seeds."""
    fields = [NoiseField(seed).read(draw, 0, 0, (3, 130, 130)) for seed in (1, 2, 2**62) for draw in (0, 1)]
    shifted = [
        plane[top : top + 64, left : left + 64]
        for f in fields
        for plane in f
        for top in (0, 1)
        for left in (0, 1, 2, 4)
    ]
    rows = torch.stack(shifted).flatten(1)
    correlation = torch.corrcoef(rows) - torch.eye(len(rows))
    assert float(correlation.abs().max()) < 6 / 64


@given(st.data())
def test_windows_agree_wherever_they_lie(data):
    side = 150
    top, left = data.draw(st.integers(0, side - 1)), data.draw(st.integers(0, side - 1))
    height, width = data.draw(st.integers(1, side - top)), data.draw(st.integers(1, side - left))
    field = NoiseField(5).read(2, 0, 0, (2, side, side))
    window = NoiseField(5).read(2, top, left, (2, height, width))
    assert torch.equal(window, field[:, top : top + height, left : left + width])


def test_a_batchs_windows_draw_plane_after_plane():
    noise = NoiseField(1).windows([(0, 0), (8, 17)])
    for draw in range(3):
        both = noise((2, 3, 16, 16))
        assert torch.equal(both[1], NoiseField(1).read(draw, 8, 17, (3, 16, 16)))
        assert torch.equal(both[0, :, 8:, :], NoiseField(1).read(draw, 8, 0, (3, 8, 16)))


def test_an_image_has_the_noise_of_its_field_whatever_its_batch():
    seeds = [3, 4, 2**63 - 1]
    together = ImageNoise(seeds)
    for draw in range(2):
        batch = together((3, 3, 70, 33))
        for image, seed in zip(batch, seeds, strict=True):
            assert torch.equal(image, NoiseField(seed).read(draw, 0, 0, (3, 70, 33)))


def test_what_is_computed_at_once_does_not_change_the_noise(monkeypatch):
    """On a GPU all rows at once, on a CPU a part at a time, with any number of threads."""
    whole = window_noise([1, 2], 0, [(0, 0), (5, 3)], (3, 64, 40))
    monkeypatch.setattr("sr3core.diffusion.noise._COUNTERS_AT_ONCE", 7)
    assert torch.equal(window_noise([1, 2], 0, [(0, 0), (5, 3)], (3, 64, 40)), whole)


def test_the_noise_stays_what_it_is():
    """Outputs and trainings depend on it: a change of these values is a new NOISE_VERSION."""
    expected = [0.40417, 1.513077, 1.926837, 0.952595, -0.244693, 1.510301]
    assert window_noise([7], 1, [(2, 3)], (2, 1, 3)).flatten().tolist() == pytest.approx(expected, abs=1e-6)
