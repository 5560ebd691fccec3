"""Scores of ensembles against other implementations, closed forms, and exact samplers of few members."""

import math

import numpy as np
import pytest
import scoringrules
import torch
import xarray as xr
from scores.probability import crps_for_ensemble
from scores.probability import rank_histogram as other_histogram

from sr3core.errors import ConfigError
from sr3core.metrics.ensemble import fair_crps, fair_energy_score, rank_histogram, spread_skill_ratio
from sr3core.metrics.spectra import radial_spectrum, spectral_angle


def drawn(members, shape, seed=0, spread=1.0):
    rng = np.random.default_rng(seed)
    return torch.tensor(spread * rng.normal(size=(members, *shape))), torch.tensor(rng.normal(size=shape))


@pytest.mark.parametrize("members", [2, 3, 16])
def test_crps_is_that_of_two_other_implementations(members):
    ensemble, truth = drawn(members, (5, 7))
    ours = fair_crps(ensemble, truth).numpy()
    theirs = scoringrules.crps_ensemble(truth.numpy(), ensemble.movedim(0, -1).numpy(), estimator="fair")
    np.testing.assert_allclose(ours, np.asarray(theirs), atol=1e-12)
    forecast = xr.DataArray(ensemble.numpy(), dims=("member", "y", "x"))
    observed = xr.DataArray(truth.numpy(), dims=("y", "x"))
    other = crps_for_ensemble(forecast, observed, "member", method="fair", preserve_dims="all")
    np.testing.assert_allclose(ours, np.asarray(other), atol=1e-12)


@pytest.mark.parametrize("members", [2, 5])
def test_energy_score_is_that_of_another_implementation(members):
    ensemble, truth = drawn(members, (4, 6))
    ours = fair_energy_score(ensemble, truth).numpy() * math.sqrt(6)
    flat = ensemble.movedim(0, 1).numpy()  # (B, M, N)
    plain = scoringrules.es_ensemble(truth.numpy(), flat, m_axis=1, v_axis=2)
    pairs = np.linalg.norm(flat[:, :, None] - flat[:, None], axis=-1).sum((1, 2))
    theirs = plain + pairs / (2 * members**2) - pairs / (2 * members * (members - 1))
    np.testing.assert_allclose(ours, np.asarray(theirs), rtol=1e-5)


def test_rank_histogram_is_that_of_another_implementation():
    ensemble, truth = drawn(4, (200,))
    ensemble, truth = ensemble.mul(2).round(), truth.mul(2).round()  # many ties
    ours = rank_histogram(ensemble, truth).numpy()
    theirs = other_histogram(
        xr.DataArray(ensemble.numpy(), dims=("member", "x")), xr.DataArray(truth.numpy(), dims=("x",)), "member"
    )
    np.testing.assert_allclose(ours, np.asarray(theirs), atol=1e-12)


@pytest.mark.parametrize("members", [2, 4, 16])
def test_an_exact_sampler_looks_exact_with_any_number_of_members(members):
    ensemble, truth = drawn(members, (100_000,), seed=members)
    assert float(fair_crps(ensemble, truth).mean()) == pytest.approx(1 / math.sqrt(math.pi), abs=0.01)
    assert spread_skill_ratio(ensemble, truth) == pytest.approx(1, abs=0.02)
    np.testing.assert_allclose(rank_histogram(ensemble, truth), 1 / (members + 1), atol=0.006)


def test_an_ensemble_that_is_too_narrow_is_seen():
    ensemble, truth = drawn(8, (50_000,), spread=0.5)
    wide, _ = drawn(8, (50_000,))
    assert spread_skill_ratio(ensemble, truth) < 0.6
    assert rank_histogram(ensemble, truth)[[0, -1]].min() > 0.15
    assert float(fair_crps(ensemble, truth).mean()) > float(fair_crps(wide, truth).mean())


def test_the_energy_score_sees_that_values_belong_together():
    rng = np.random.default_rng(0)
    common = rng.normal(size=(9, 4000, 1)) * np.ones(8)
    members, truth = torch.tensor(common[:8]), torch.tensor(common[8])
    torn = torch.stack([members[:, torch.randperm(4000), i] for i in range(8)], dim=-1)
    assert float(fair_energy_score(members, truth).mean()) < float(fair_energy_score(torn, truth).mean()) - 0.02


def test_weights_leave_values_out():
    ensemble, truth = drawn(4, (1000,))
    known = torch.ones(1000)
    known[500:] = 0
    half = spread_skill_ratio(ensemble[:, :500], truth[:500])
    assert spread_skill_ratio(ensemble, truth, known) == pytest.approx(half)
    np.testing.assert_allclose(
        rank_histogram(ensemble, truth, known), rank_histogram(ensemble[:, :500], truth[:500]), atol=1e-12
    )


def test_one_member_is_no_ensemble():
    with pytest.raises(ConfigError, match="needs two at least, and there are 1"):
        fair_crps(torch.zeros(1, 3), torch.zeros(3))


def test_a_spectrum_has_the_slope_of_its_field():
    rng = np.random.default_rng(0)
    k = np.hypot(np.fft.fftfreq(256, 1 / 256)[:, None], np.fft.fftfreq(256, 1 / 256))
    k[0, 0] = 1
    noise = np.fft.fft2(rng.normal(size=(16, 256, 256)))
    whole = np.fft.ifft2(noise * k**-2.5).real
    found = radial_spectrum(torch.tensor(whole[:, :128, :128])).mean(0).numpy()  # a part of it is not periodic
    rings = np.arange(1, 65)
    slope = np.polyfit(np.log(rings[3:40]), np.log(found[3:40]), 1)[0]
    assert slope == pytest.approx(-5, abs=0.3)


def test_white_noise_has_its_variance_in_every_ring():
    noise = torch.tensor(np.random.default_rng(1).normal(0, 3, (32, 48, 64)))
    found = radial_spectrum(noise).mean(0) * 48 * 64
    assert found.shape == (24,)
    np.testing.assert_allclose(found, 9 * 48 * 64 / 48 / 64 * torch.ones(24), rtol=0.25)


def test_the_angle_of_spectra_knows_no_brightness():
    rng = np.random.default_rng(0)
    truth = torch.tensor(rng.uniform(1, 2, (2, 4, 5, 5)))
    torch.testing.assert_close(
        spectral_angle(3 * truth, truth), torch.zeros(2, 5, 5, dtype=truth.dtype), atol=1e-4, rtol=0
    )
    one, other = torch.tensor([1.0, 0]).view(1, 2, 1, 1), torch.tensor([1.0, 1]).view(1, 2, 1, 1)
    assert float(spectral_angle(one, other)) == pytest.approx(45)
