"""What samples of fields add to scores: merged over samples, the terms give the scores of all values at once."""

import pytest
import scoringrules
import torch

from sr3core.metrics.ensemble import fair_crps, rank_histogram
from sr3core.metrics.field_terms import angle_terms, coarsening_terms, energy_terms, forecast_terms


def drawn(members=4, samples=6, channels=2, size=8):
    generator = torch.Generator().manual_seed(3)
    ensemble = torch.randn(members, samples, channels, size, size, generator=generator, dtype=torch.float64)
    return ensemble, torch.randn(samples, channels, size, size, generator=generator, dtype=torch.float64)


def test_terms_add_up_to_the_scores_of_all_values():
    ensemble, truth = drawn()
    found = {name: term.sum(0) for name, term in forecast_terms(ensemble, truth).items()}
    axes = (0, -2, -1)
    assert found["count"].tolist() == [6 * 64, 6 * 64]
    torch.testing.assert_close(found["squared"] / found["count"], (ensemble.mean(0) - truth).square().mean(axes))
    torch.testing.assert_close(found["error"] / found["count"], (ensemble.mean(0) - truth).mean(axes))
    torch.testing.assert_close(found["crps"] / found["count"], fair_crps(ensemble, truth).mean(axes))
    torch.testing.assert_close(found["variance"] / found["count"], ensemble.var(0).mean(axes))
    ranks = found["ranks"].sum(0)
    torch.testing.assert_close(ranks / ranks.sum(), rank_histogram(ensemble, truth))


def test_values_that_are_not_known_count_nothing():
    ensemble, truth = drawn()
    valid = torch.ones_like(truth, dtype=torch.bool)
    valid[:, :, :, 4:] = False
    wrong = truth.where(valid, 1e6)
    ours, theirs = forecast_terms(ensemble, wrong, valid), forecast_terms(ensemble[..., :4], truth[..., :4])
    for name in ("count", "squared", "absolute", "error", "crps", "variance", "ranks"):
        torch.testing.assert_close(ours[name], theirs[name])
    known = energy_terms(ensemble.where(valid, 0.0), truth.where(valid, 0.0))
    torch.testing.assert_close(energy_terms(ensemble, wrong, valid), known)


def test_the_crps_of_one_member_is_its_absolute_error_and_its_energy_score_a_distance():
    ensemble, truth = drawn(members=1)
    found = forecast_terms(ensemble, truth)
    torch.testing.assert_close(found["crps"], found["absolute"])
    assert "ranks" not in found
    expected = scoringrules.es_ensemble(truth.flatten(1).numpy(), ensemble.movedim(0, 1).flatten(2).numpy())
    torch.testing.assert_close(energy_terms(ensemble, truth)[:, 0] * 128**0.5, torch.as_tensor(expected))


def test_angles_and_differences_after_coarsening():
    truth = torch.tensor([[3.0, 4.0]]).view(1, 2, 1, 1).expand(1, 2, 8, 8)
    turned = torch.tensor([[-4.0, 3.0]]).view(1, 2, 1, 1).expand(1, 2, 8, 8)
    assert float(angle_terms(turned[None], truth)) == pytest.approx(90)
    ensemble, _ = drawn()
    means = torch.nn.functional.avg_pool2d(ensemble.flatten(0, 1), 4).unflatten(0, (4, 6))
    low = means[0] + 0.5
    expected = (means - low).square().mean((0, -2, -1))
    torch.testing.assert_close(coarsening_terms(ensemble, low), expected)
