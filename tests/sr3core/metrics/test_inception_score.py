"""Inception Score: closed forms and scipy's entropies."""

import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import entropy

from sr3core.errors import ConfigError, DataError
from sr3core.metrics.inception_score import inception_score


def test_sure_and_varied_scores_the_number_of_classes_and_unsure_scores_one() -> None:
    sure = 1000.0 * np.eye(8)
    assert inception_score(sure, num_splits=1).mean == pytest.approx(8, rel=1e-12)
    assert inception_score(np.zeros((20, 8)), num_splits=4) == pytest.approx((1, 0), abs=1e-12)
    one_mode = np.tile(sure[:1], (10, 1))
    assert inception_score(one_mode, num_splits=2) == pytest.approx((1, 0), abs=1e-12)


def test_classes_that_are_ruled_out_add_nothing() -> None:
    logits = np.array([[0.0, 0.0, -1e4], [0.0, 0.0, -1e4]])
    assert inception_score(logits, num_splits=1).mean == pytest.approx(1, rel=1e-12)


def test_equals_scipys_entropies_split_by_split() -> None:
    logits = 3 * np.random.default_rng(0).standard_normal((103, 12)).astype(np.float32)
    p = softmax(logits.astype(np.float64), axis=1)
    scores = [np.exp(np.mean([entropy(row, part.mean(axis=0)) for row in part])) for part in np.array_split(p, 5)]
    assert inception_score(logits, num_splits=5) == pytest.approx((np.mean(scores), np.std(scores)), rel=1e-10)


def test_does_not_depend_on_a_constant_added_to_the_logits() -> None:
    logits = np.random.default_rng(0).standard_normal((20, 5))
    assert inception_score(logits + 1e4, 2) == pytest.approx(inception_score(logits, 2), rel=1e-9)


def test_unfit_logits_are_refused() -> None:
    with pytest.raises(ConfigError, match="num_splits"):
        inception_score(np.zeros((3, 2)), 0)
    with pytest.raises(DataError, match="10 parts needs at least as many images, got 3"):
        inception_score(np.zeros((3, 2)))
    with pytest.raises(DataError, match="not finite"):
        inception_score(np.full((3, 2), np.nan), 1)
