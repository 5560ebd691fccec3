"""Fool rates: closed forms, independent implementations, and coverage by simulation."""

import numpy as np
import pytest
from scipy import stats

from sr3core.errors import ConfigError, DataError
from sr3core.metrics.fool_rate import (
    NUM_REPLICATES,
    Answers,
    compare_models,
    fool_rate,
    fool_rate_interval,
    rates_by,
    wilson_interval,
)


def grid(fooled: np.ndarray, prefix: str = "s") -> Answers:
    """Every subject (row) saw every image (column)."""
    rows, columns = np.indices(fooled.shape)
    return Answers(
        [f"{prefix}{row}" for row in rows.flat], [f"i{column}" for column in columns.flat], fooled.ravel().tolist()
    )


def simulate(generator: np.random.Generator, num_subjects: int, num_images: int, num_shown: int) -> Answers:
    """People who differ (0.6 on the logit scale) judge images that differ (1.0); each sees some of the images."""
    people, images = generator.normal(0, 0.6, num_subjects), generator.normal(0, 1.0, num_images)
    shown = np.stack([generator.permutation(num_images)[:num_shown] for _ in people])
    chance = 1 / (1 + np.exp(0.2 - people[:, None] - images[shown]))
    fooled = generator.random(shown.shape) < chance
    subjects = np.repeat([f"s{number}" for number in range(num_subjects)], num_shown)
    return Answers(subjects.tolist(), [f"i{image}" for image in shown.flat], fooled.ravel().tolist())


def true_rate() -> float:
    """Mean of the logistic function over both populations, by quadrature."""
    points, weights = np.polynomial.hermite_e.hermegauss(101)
    return float((weights / (1 + np.exp(0.2 - np.hypot(0.6, 1.0) * points))).sum() / weights.sum())


def test_the_rate_is_the_share_of_trials_and_the_mean_of_the_subjects_rates():
    answers = grid(np.array([[1, 0, 1, 1], [0, 0, 0, 1], [1, 1, 1, 1]], bool))
    assert fool_rate(answers) == 8 / 12
    by_subject = rates_by(answers.subjects, answers.fooled)
    assert by_subject == {"s0": (0.75, 4), "s1": (0.25, 4), "s2": (1.0, 4)}
    assert fool_rate(answers) == pytest.approx(np.mean([rate for rate, _ in by_subject.values()]))
    assert rates_by(answers.images, answers.fooled)["i3"] == (1.0, 3)


@pytest.mark.parametrize(("fooled", "trials"), [(0, 7), (3, 7), (7, 7), (1234, 2500)])
def test_wilsons_interval_is_scipys(fooled, trials):
    theirs = stats.binomtest(fooled, trials).proportion_ci(method="wilson")
    assert wilson_interval(fooled, trials) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


@pytest.mark.parametrize("by_subject", [True, False])
def test_where_only_subjects_or_only_images_differ_a_replicate_is_binomial(by_subject):
    """Each of 40 is fooled always (14) or never: the rate in a replicate is Binomial(40, 0.35) / 40."""
    fooled = np.repeat((np.arange(40) < 14)[:, None], 30, axis=1)
    found = fool_rate_interval(grid(fooled if by_subject else fooled.T), seed=3)
    low, high = stats.binom.ppf([0.025, 0.975], 40, 0.35) / 40
    assert abs(found.low - low) <= 1 / 40  # one step of the distribution: the quantiles lie on its steps
    assert abs(found.high - high) <= 1 / 40


def test_the_replicates_are_those_of_a_plain_loop_over_copies():
    generator = np.random.default_rng(1)
    answers = simulate(generator, 12, 15, 8)
    rates = []
    for _ in range(3000):
        people = generator.integers(0, 12, 12)
        images = generator.integers(0, 15, 15)
        copies = [
            np.count_nonzero(people == int(s[1:])) * np.count_nonzero(images == int(i[1:]))
            for s, i in zip(answers.subjects, answers.images, strict=True)
        ]
        rates.append(np.average(answers.fooled, weights=copies))
    found = fool_rate_interval(answers, seed=0)
    # A 2.5% quantile of 3000 nearly normal draws has the standard error sqrt(p (1 - p) / n) / phi(z) = 0.049 sd.
    tolerance = 4 * 0.06 * float(np.std(rates))
    assert found.low == pytest.approx(np.quantile(rates, 0.025), abs=tolerance)
    assert found.high == pytest.approx(np.quantile(rates, 0.975), abs=tolerance)


def test_two_way_intervals_cover_and_wilsons_on_pooled_trials_do_not():
    """150 studies of the paper's size. bench_study_coverage.py does this with thousands."""
    generator, truth, studies = np.random.default_rng(0), true_rate(), 150
    two_way = wilson = 0
    for number in range(studies):
        answers = simulate(generator, 50, 100, 50)
        found = fool_rate_interval(answers, number, num_replicates=500)
        low, high = wilson_interval(sum(answers.fooled), len(answers.fooled))
        two_way += found.low <= truth <= found.high
        wilson += low <= truth <= high
    standard_error = np.sqrt(0.95 * 0.05 / studies)
    assert two_way / studies >= 0.95 - 4 * standard_error
    assert wilson / studies <= 0.95 - 10 * standard_error  # a third of the studies miss the truth, or more


def test_unanimous_answers_do_not_have_an_interval_of_no_width():
    found = fool_rate_interval(grid(np.zeros((5, 4), bool)), seed=0)
    assert (found.rate, found.low) == (0.0, 0.0)
    assert found.high == pytest.approx(wilson_interval(0, 20)[1])


def test_differences_are_paired_by_image():
    """Two models that fool with the same images: their rates are uncertain, their difference is none."""
    fooled = np.repeat((np.arange(20) % 3 == 0)[None], 10, axis=0)
    rates, (pair,) = compare_models({"a": grid(fooled, "a"), "b": grid(fooled, "b")}, seed=0)
    assert rates["a"].high - rates["a"].low > 0.3
    assert (pair.difference, pair.low, pair.high, pair.p_value) == (0.0, 0.0, 0.0, 1.0)


def test_a_clear_difference_has_the_smallest_p_value_and_holm_multiplies_it():
    generator = np.random.default_rng(2)
    models = {name: grid(generator.random((30, 30)) < p, name) for name, p in (("a", 0.1), ("b", 0.5), ("c", 0.9))}
    _, pairs = compare_models(models, seed=0)
    assert [(pair.first, pair.second) for pair in pairs] == [("a", "b"), ("a", "c"), ("b", "c")]
    smallest = 2 / (NUM_REPLICATES + 1)
    assert [pair.p_value for pair in pairs] == pytest.approx([smallest] * 3)
    assert [pair.p_adjusted for pair in pairs] == pytest.approx([3 * smallest] * 3)
    assert all(pair.low <= pair.difference <= pair.high < 0 for pair in pairs)


def test_the_same_seed_gives_the_same_interval_whatever_the_order_of_the_trials():
    answers = simulate(np.random.default_rng(4), 8, 10, 6)
    order = [int(i) for i in np.random.default_rng(5).permutation(len(answers.fooled))]
    shuffled = Answers(
        [answers.subjects[i] for i in order], [answers.images[i] for i in order], [answers.fooled[i] for i in order]
    )
    assert fool_rate_interval(answers, 7, 1000) == fool_rate_interval(shuffled, 7, 1000)
    assert fool_rate_interval(answers, 7, 1000) != fool_rate_interval(answers, 8, 1000)


def test_what_cannot_be_computed_is_refused():
    with pytest.raises(DataError, match="at least one answer"):
        Answers([], [], [])
    with pytest.raises(DataError, match="2 subjects, 1 images"):
        Answers(["a", "b"], ["i"], [True, False])
    with pytest.raises(DataError, match="at least one trial"):
        wilson_interval(0, 0)
    with pytest.raises(ConfigError, match="num_replicates: 10"):
        fool_rate_interval(grid(np.ones((2, 2), bool)), 0, num_replicates=10)
