"""The extrapolated Fréchet distance against the closed form of Gaussians, and against what few images do to FID."""

import numpy as np
import pytest

from sr3core.errors import DataError
from sr3core.metrics.fid import frechet_distance_from_features
from sr3core.metrics.fid_infinity import extrapolated_frechet_distance

DIM = 16
GENERATOR = np.random.default_rng(0)


def draws(scale: float, shift: float, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Outputs off by a scale and a shift, and references: two samples of Gaussians."""
    ours, theirs = GENERATOR.normal(size=(2, count, DIM))
    return scale * ours + shift, theirs


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (0.5, 0.2), (1.5, 0.0)])
def test_it_has_hardly_any_of_the_bias_of_few_images(scale: float, shift: float) -> None:
    true = DIM * (shift**2 + (1 - scale) ** 2)
    plain, extrapolated = [], []
    for _ in range(60):
        ours, theirs = draws(scale, shift, 200)
        plain.append(frechet_distance_from_features(ours, theirs))
        extrapolated.append(extrapolated_frechet_distance(ours, theirs))
    bias = float(np.mean(plain)) - true
    assert bias > 0.3, "few images make it too high"
    assert abs(float(np.mean(extrapolated)) - true) < 0.25 * bias


def test_the_bias_depends_on_the_distribution_so_that_equal_numbers_do_not_help() -> None:
    """Two samplers as far from the truth: one too narrow, which FID of few images prefers, one too wide."""
    plain, extrapolated = np.zeros(2), np.zeros(2)
    for _ in range(60):
        for place, scale in enumerate((0.7, 1.3)):
            ours, theirs = draws(scale, 0.0, 200)
            plain[place] += frechet_distance_from_features(ours, theirs) / 60
            extrapolated[place] += extrapolated_frechet_distance(ours, theirs) / 60
    assert plain[1] - plain[0] > 0.3
    assert abs(extrapolated[1] - extrapolated[0]) < 0.3 * (plain[1] - plain[0])


def test_sets_of_different_sizes_are_split_alike() -> None:
    ours, theirs = GENERATOR.normal(size=(120, DIM)), GENERATOR.normal(size=(480, DIM))
    sizes = np.arange(1, 4)
    means = [
        np.mean([frechet_distance_from_features(ours[j::k], theirs[j::k]) for j in range(k)]) for k in sizes.tolist()
    ]
    slope, intercept = np.polyfit(sizes, means, 1)
    assert slope > 0
    assert extrapolated_frechet_distance(ours, theirs, num_sizes=3) == pytest.approx(intercept)


def test_three_images_make_no_line() -> None:
    with pytest.raises(DataError, match="at least four images per set, got 3 and 80"):
        extrapolated_frechet_distance(GENERATOR.normal(size=(3, 4)), GENERATOR.normal(size=(80, 4)))
