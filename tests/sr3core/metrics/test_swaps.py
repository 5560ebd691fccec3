"""Errors of differences by exchange: against the closed form of a mean, and against repeated draws at n < D."""

from collections.abc import Callable

import numpy as np
import pytest

from sr3core.metrics.bootstrap import bootstrap_values
from sr3core.metrics.fid import frechet_distance_from_features
from sr3core.metrics.swaps import swapped_difference


def test_the_error_of_a_mean_difference_is_the_closed_form() -> None:
    """Exchanges change the signs of the differences: their mean then has the variance of sum(d^2) / n^2."""
    first, second = np.random.default_rng(0).normal(size=(2, 400))
    gap = first - second
    found = swapped_difference(lambda mask: float(np.where(mask, -gap, gap).mean()), 400, num_swaps=2000)
    assert found.value == pytest.approx(gap.mean())
    assert found.error == pytest.approx(np.sqrt(np.square(gap).sum()) / 400, rel=0.05)
    assert (found.low + found.high) / 2 == pytest.approx(found.value)
    assert found.high - found.low == pytest.approx(2 * 1.96 * found.error, rel=1e-3)


def distances(a: np.ndarray, b: np.ndarray, references: np.ndarray) -> Callable[[np.ndarray], float]:
    """The difference of two methods' Fréchet distances with the masked images exchanged."""

    def gap(mask: np.ndarray) -> float:
        swapped = np.where(mask[:, None], b, a), np.where(mask[:, None], a, b)
        return frechet_distance_from_features(swapped[0], references) - frechet_distance_from_features(
            swapped[1], references
        )

    return gap


@pytest.mark.parametrize(("noise", "least"), [(0.6, 1.15), (0.3, 1.3)], ids=["equal-methods", "a-real-difference"])
def test_at_fewer_images_than_features_it_is_right_where_the_bootstrap_is_too_wide(noise: float, least: float) -> None:
    """The error of a difference of two Fréchet distances on the same references, against its scatter over draws."""
    generator = np.random.default_rng(2)
    count, dim, found, errors, wide = 48, 128, [], [], []
    scales = np.arange(1, dim + 1) ** -0.75
    for _ in range(60):
        references, first, second = generator.normal(size=(3, count, dim)) * scales
        a, b = 0.8 * references + 0.6 * first, 0.8 * references + noise * second
        difference = swapped_difference(distances(a, b, references), count, num_swaps=30)
        found.append(difference.value)
        errors.append(difference.error)

        def resampled(kept: np.ndarray, a=a, b=b, r=references) -> float:
            return frechet_distance_from_features(a[kept], r[kept]) - frechet_distance_from_features(b[kept], r[kept])

        wide.append(float(np.std(bootstrap_values(resampled, count, num_resamples=5), ddof=1)))
    scatter = float(np.std(found))
    assert float(np.mean(errors)) == pytest.approx(scatter, rel=0.2)
    assert float(np.mean(wide)) > least * scatter
