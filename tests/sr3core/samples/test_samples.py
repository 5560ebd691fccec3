"""Transforms and their inverses, and statistics that are merged."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sr3core.config import from_dict, to_dict
from sr3core.errors import ConfigError
from sr3core.samples.spec import Channel, SampleSpec
from sr3core.samples.statistics import Moments, merge
from sr3core.samples.transforms import low_to_model, quantile_levels, to_model, to_physical

T2M = Channel(name="t2m", units="K", mean=280.0, std=10.0)
RAIN = Channel(name="tp", units="mm", transform="log1p", mean=0.5, std=0.8, lowest=0.0)
GREY = Channel(name="grey", transform="range", lowest=0.0, highest=65535.0)


def test_a_standard_deviation_is_half_a_unit_of_the_network():
    values = np.array([[[270.0, 280.0, 290.0]]])
    np.testing.assert_allclose(to_model(values, [T2M]), [[[-0.5, 0, 0.5]]])


@given(arrays(np.float64, (1, 2, 3), elements=st.floats(0, 500)))
def test_every_transform_is_undone(values):
    quantiles = Channel(name="q", transform="quantile", levels=quantile_levels(np.linspace(-3, 300, 999) ** 2 / 100))
    for channel in (T2M, RAIN, GREY, quantiles):
        back = to_physical(to_model(values, [channel]), [channel])
        np.testing.assert_allclose(back, values, rtol=2e-4, atol=5e-3)


def test_a_quantile_transform_makes_any_distribution_normal():
    rng = np.random.default_rng(0)
    values = rng.gamma(0.3, 5, 20_000)
    channel = Channel(name="tp", transform="quantile", levels=quantile_levels(values))
    made = to_model(values.reshape(1, 100, 200), [channel])
    assert abs(float(made.mean())) < 0.01
    assert float(made.std()) == pytest.approx(0.5, abs=0.01)
    assert np.quantile(made, 0.975) == pytest.approx(0.98, abs=0.02)


def test_a_quantile_transform_of_many_equal_values_stays_finite():
    values = np.concatenate([np.zeros(900), np.linspace(0.1, 9, 100)])
    channel = Channel(name="tp", transform="quantile", levels=quantile_levels(values))
    made = to_model(values.reshape(1, 10, 100), [channel])
    assert np.isfinite(made).all()
    np.testing.assert_allclose(to_physical(made, [channel])[0].ravel()[:900], 0, atol=1e-6)


def test_outputs_are_kept_within_bounds_and_others_are_not():
    far = np.full((2, 1, 1), -9.0)
    rain, t2m = to_physical(far, [RAIN, T2M])
    assert rain.item() == 0
    assert t2m.item() == 100


def test_images_of_16_bits_fill_the_range_of_images():
    np.testing.assert_array_equal(to_model(np.array([[[0, 65535]]], np.uint16), [GREY]), [[[-1, 1]]])


def test_unknown_values_are_the_mean():
    values = np.array([[[300.0, 0.0]]])
    np.testing.assert_array_equal(to_model(values, [T2M], np.array([[[True, False]]])), [[[1, 0]]])


def test_the_input_has_the_channels_that_are_made_first():
    z500 = Channel(name="z500", mean=5.0)
    spec = SampleSpec(high=(RAIN, T2M), low=(z500, T2M))
    low = np.stack([np.full((2, 2), 7.0), np.full((2, 2), 290.0)])
    made = low_to_model(low, spec)
    np.testing.assert_allclose(made[:, 0, 0], [0, 0.5, 1])
    assert [channel.name for channel in spec.further] == ["z500"]
    assert spec.num_extra == 1


@given(st.lists(arrays(np.float32, st.integers(0, 9), elements=st.floats(-1e4, 1e4, width=32)), min_size=1, max_size=6))
def test_merged_moments_are_those_of_all_values(parts):
    whole = np.concatenate(parts).astype(np.float64)
    found = merge(Moments.of(part) for part in parts)
    assert found.count == whole.size
    if whole.size:
        assert found.mean == pytest.approx(whole.mean(), rel=1e-9, abs=1e-7)
        assert found.std == pytest.approx(whole.std(), rel=1e-6, abs=1e-4)
        assert (found.minimum, found.maximum) == (whole.min(), whole.max())


def test_a_large_offset_does_not_spoil_the_spread():
    rng = np.random.default_rng(1)
    parts = [1e8 + rng.normal(0, 1, 1000) for _ in range(50)]
    assert merge(map(Moments.of, parts)).std == pytest.approx(np.concatenate(parts).std(), rel=1e-9)


def test_a_spec_survives_json():
    spec = SampleSpec(high=(T2M, RAIN), low=(T2M,), static=(Channel(name="orography"),), has_mask=True, valid_share=0.7)
    assert from_dict(SampleSpec, to_dict(spec)) == spec


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Channel(name="x", std=0.0), "std of x"),
        (lambda: Channel(name="x", transform="range"), "range needs both bounds, such as x=0:65535 after --bounds"),
        (lambda: Channel(name="x", lowest=2.0, highest=1.0), "2.0 is not below 1.0"),
        (lambda: SampleSpec(high=(T2M, T2M), low=(T2M,)), "not all different"),
        (lambda: SampleSpec(high=(T2M,), low=(Channel(name="t2m", units="C"),)), "not one quantity"),
    ],
)
def test_nonsense_is_refused(make, said):
    with pytest.raises(ConfigError, match=said):
        make()
