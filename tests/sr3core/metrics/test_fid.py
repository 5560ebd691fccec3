"""The Fréchet distance against scipy's matrix square root, closed forms and its own invariances."""

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

from sr3core.errors import DataError
from sr3core.metrics.fid import Moments, frechet_distance, frechet_distance_from_features, rank_deficient


def correlated(count: int, dim: int, seed: int, shift: float = 0.0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    mixing = generator.standard_normal((dim, dim)) / np.sqrt(dim) + 0.3 * np.eye(dim)
    return generator.standard_normal((count, dim)) @ mixing + shift


def by_sqrtm(a: Moments, b: Moments) -> float:
    root = np.real(scipy.linalg.sqrtm(a.covariance @ b.covariance))
    difference = a.mean - b.mean
    return float(difference @ difference + np.trace(a.covariance + b.covariance - 2 * root))


def moments_of(mean: np.ndarray, covariance: np.ndarray) -> Moments:
    return Moments(count=1001, mean=mean, scatter=1000 * covariance)


@pytest.mark.parametrize("dim", [1, 2, 16, 128])
def test_equals_scipys_matrix_square_root(dim: int) -> None:
    a, b = (Moments.from_features(correlated(4 * dim + 8, dim, seed, seed * 0.1)) for seed in (1, 2))
    assert frechet_distance(a, b) == pytest.approx(by_sqrtm(a, b), rel=1e-6)


@given(
    st.lists(st.tuples(*[st.floats(-3, 3)] * 2, *[st.floats(0, 4)] * 2), min_size=1, max_size=8),
)
def test_diagonal_gaussians_have_a_closed_form(rows: list[tuple[float, float, float, float]]) -> None:
    mean_a, mean_b, sigma_a, sigma_b = np.array(rows).T
    expected = np.square(mean_a - mean_b).sum() + np.square(sigma_a - sigma_b).sum()
    found = frechet_distance(moments_of(mean_a, np.diag(sigma_a**2)), moments_of(mean_b, np.diag(sigma_b**2)))
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-5)


def test_low_rank_path_equals_the_matrices() -> None:
    a, b = correlated(20, 64, 1), correlated(33, 64, 2, 0.2)
    whole = frechet_distance(Moments.from_features(a), Moments.from_features(b))
    assert frechet_distance_from_features(a, b) == pytest.approx(whole, rel=1e-9)
    assert frechet_distance_from_features(b, a) == pytest.approx(whole, rel=1e-9)


def test_features_of_full_rank_take_the_matrices() -> None:
    a, b = correlated(200, 16, 1), correlated(10, 16, 2)
    whole = frechet_distance(Moments.from_features(a), Moments.from_features(b))
    assert frechet_distance_from_features(a, b) == whole
    assert whole == pytest.approx(by_sqrtm(Moments.from_features(a), Moments.from_features(b)), rel=1e-6)


@pytest.mark.parametrize("count", [12, 300])
def test_zero_on_the_same_set_and_symmetric(count: int) -> None:
    a, b = correlated(count, 32, 1), correlated(count, 32, 2)
    scale = np.trace(Moments.from_features(a).covariance)
    assert frechet_distance_from_features(a, a) == pytest.approx(0, abs=1e-9 * scale)
    assert frechet_distance_from_features(a, b) == pytest.approx(frechet_distance_from_features(b, a), rel=1e-9)


@pytest.mark.parametrize("count", [12, 300])
def test_invariant_to_rotation_and_translation_and_quadratic_in_scale(count: int) -> None:
    a, b = correlated(count, 24, 1), correlated(count, 24, 2, 0.5)
    rotation = np.linalg.qr(np.random.default_rng(0).standard_normal((24, 24)))[0]
    distance = frechet_distance_from_features(a, b)
    assert frechet_distance_from_features(a @ rotation + 7, b @ rotation + 7) == pytest.approx(distance, rel=1e-8)
    assert frechet_distance_from_features(3 * a, 3 * b) == pytest.approx(9 * distance, rel=1e-8)


@settings(max_examples=50)
@given(seed=st.integers(0, 1000), cuts=st.lists(st.integers(0, 40), max_size=5), offset=st.floats(-100, 100))
def test_merging_any_split_equals_the_whole(seed: int, cuts: list[int], offset: float) -> None:
    features = correlated(40, 6, seed) + offset
    merged = Moments.from_features(features[:0])
    for part in np.split(features, sorted(cuts)):
        merged = merged.merge(Moments.from_features(part))
    whole = Moments.from_features(features)
    assert merged.count == whole.count
    np.testing.assert_allclose(merged.mean, whole.mean, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(merged.scatter, whole.scatter, rtol=1e-9, atol=1e-9 * np.trace(whole.scatter))


def test_merging_keeps_precision_far_from_the_origin() -> None:
    features = correlated(1000, 3, 0) + 1e6
    halves = [Moments.from_features(half) for half in np.split(features, 2)]
    np.testing.assert_allclose(halves[0].merge(halves[1]).covariance, np.cov(features.T), rtol=1e-9)


def test_covariance_is_unbiased_and_float32_is_computed_in_float64() -> None:
    features = correlated(50, 4, 0).astype(np.float32)
    moments = Moments.from_features(features)
    np.testing.assert_allclose(moments.covariance, np.cov(features.astype(np.float64).T), rtol=1e-12)


def test_rank_warning_begins_at_one_vector_too_few() -> None:
    assert rank_deficient(Moments.from_features(correlated(16, 16, 0)))
    assert not rank_deficient(Moments.from_features(correlated(17, 16, 0)))


def test_unfit_features_are_refused() -> None:
    features = correlated(8, 4, 0)
    with pytest.raises(DataError, match="dimensions"):
        frechet_distance_from_features(features, features[:, :3])
    with pytest.raises(DataError, match="dimensions"):
        Moments.from_features(features).merge(Moments.from_features(features[:, :3]))
    with pytest.raises(DataError, match="two images"):
        frechet_distance_from_features(features, features[:1])
    with pytest.raises(DataError, match="two images"):
        frechet_distance(Moments.from_features(features[:1]), Moments.from_features(features))
    with pytest.raises(DataError, match="1 of 8 feature vectors are not finite"):
        Moments.from_features(np.where(np.arange(8)[:, None] == 3, np.nan, features))
    with pytest.raises(DataError, match=r"\(n, D\)"):
        Moments.from_features(features[0])
