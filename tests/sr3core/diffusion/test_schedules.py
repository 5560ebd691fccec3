"""Section 2.4: the training schedule, p(gamma) and inference schedules."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sr3core.diffusion.schedules import (
    FAMILIES,
    InferenceSchedule,
    check_gammas,
    cumulative_gammas,
    default_schedule,
    inference_gammas,
    respace,
    sample_gamma,
    schedule_from_json,
    step_of,
    training_gammas,
)
from sr3core.diffusion.theory import alphas_of
from sr3core.errors import CheckpointError, ConfigError
from sr3core.hyperparameters import NoiseScheduleConfig, SamplerConfig


def test_gammas_are_the_running_product_of_alphas():
    alphas = np.array([0.9, 0.8, 0.5])
    gammas = cumulative_gammas(alphas)
    np.testing.assert_allclose(gammas, [1, 0.9, 0.72, 0.36])


def test_the_linear_schedule_ends_where_its_betas_add_up_to():
    gammas = training_gammas(NoiseScheduleConfig())
    assert len(gammas) == 2001
    assert gammas[0] == 1
    # log gamma_T = sum log(1 - beta_t) = -sum (beta + beta^2/2 + ...), sums of an arithmetic series in closed form.
    betas = np.linspace(1e-6, 1e-2, 2000)
    series = -sum((betas**power).sum() / power for power in range(1, 8))
    assert np.log(gammas[-1]) == pytest.approx(series, rel=1e-12)
    assert gammas[-1] == pytest.approx(4.4e-5, rel=0.02)


def test_the_noisiest_level_amplifies_an_epsilon_error_151_times():
    gamma = training_gammas(NoiseScheduleConfig())[-1]
    assert np.sqrt((1 - gamma) / gamma) == pytest.approx(151, abs=1)


def test_the_cosine_schedule_follows_its_curve_until_the_cap():
    gammas = training_gammas(NoiseScheduleConfig(family="cosine", num_steps=1000))
    t = np.arange(1001) / 1000
    curve = np.cos((t + 0.008) / 1.008 * np.pi / 2) ** 2
    np.testing.assert_allclose(gammas[:990], (curve / curve[0])[:990], rtol=1e-9)
    assert gammas[-1] > 0


@pytest.mark.parametrize("family", ["linear", "cosine"])
def test_levels_of_the_steps_themselves_are_drawn_exactly_and_their_steps_found(family):
    gammas = training_gammas(NoiseScheduleConfig(family=family))
    u_step, u_within = np.random.default_rng(0).random((2, 4000))
    drawn = sample_gamma(gammas, u_step, u_within, "steps")
    t = step_of(gammas, drawn)
    np.testing.assert_array_equal(gammas[t], drawn)
    assert t.min() <= 3
    assert t.max() >= 1998
    np.testing.assert_array_equal(step_of(gammas, gammas[1:]), np.arange(1, 2001))


def test_a_level_between_two_steps_belongs_to_the_noisier_one():
    gammas = np.array([1, 0.8, 0.5, 0.1])
    np.testing.assert_array_equal(step_of(gammas, np.array([1, 0.9, 0.8, 0.79, 0.5, 0.2, 0.1])), [1, 1, 1, 2, 2, 3, 3])


@pytest.mark.parametrize("uniform_in", ["gamma", "sqrt_gamma"])
def test_p_gamma_is_uniform_within_each_step_and_over_the_steps(uniform_in):
    gammas = cumulative_gammas(np.array([0.5, 0.5, 0.5, 0.5]))
    generator = np.random.default_rng(0)
    draws = sample_gamma(gammas, generator.random(200_000), generator.random(200_000), uniform_in)
    counts, _ = np.histogram(draws, bins=gammas[::-1])
    np.testing.assert_allclose(counts / len(draws), 0.25, atol=0.005)
    first = draws[draws > 0.5]
    # E over U(0.5, 1) is 0.75; over the square of U(sqrt 0.5, 1) it is (1 + sqrt 0.5 + 0.5) / 3.
    expected = 0.75 if uniform_in == "gamma" else (1 + np.sqrt(0.5) + 0.5) / 3
    assert first.mean() == pytest.approx(expected, abs=0.003)


def test_p_gamma_stays_inside_the_schedule_at_the_extremes():
    gammas = training_gammas(NoiseScheduleConfig(num_steps=10))
    below_one = np.nextafter(1.0, 0.0)
    draws = sample_gamma(gammas, np.array([0.0, below_one, 0.0, below_one]), np.array([0.0, 0.0, below_one, below_one]))
    assert np.all(draws <= 1)
    assert np.all(draws >= gammas[-1])
    assert draws[1] == gammas[-1]


@given(
    family=st.sampled_from(FAMILIES),
    num_steps=st.integers(1, 200),
    first=st.floats(1e-6, 1e-3),
    last=st.floats(4.4e-5, 1e-2),
    shape=st.floats(0.3, 3.0),
)
def test_every_inference_schedule_is_valid_and_has_the_end_points_asked_for(family, num_steps, first, last, shape):
    gammas = inference_gammas(family, num_steps, 1 - first, last, shape)
    check_gammas(gammas, smallest_trained=last)
    assert len(gammas) == num_steps + 1
    assert gammas[-1] == last
    if num_steps > 1:
        assert gammas[1] == 1 - first


def test_the_families_are_the_curves_that_they_are_called():
    sigma = np.sqrt((1 - (g := inference_gammas("karras", 20, 0.9999, 1e-3))) / g)[1:]
    np.testing.assert_allclose(np.diff(sigma ** (1 / 7)), np.diff(sigma ** (1 / 7))[0], rtol=1e-6)
    angle = np.arccos(np.sqrt(inference_gammas("cosine", 20, 0.9999, 1e-3)[1:]))
    np.testing.assert_allclose(np.diff(angle), np.diff(angle)[0], rtol=1e-6)
    log_ratio = np.log((g := inference_gammas("sigmoid", 20, 0.9999, 1e-3)[1:]) / (1 - g))
    np.testing.assert_allclose(np.diff(log_ratio), np.diff(log_ratio)[0], rtol=1e-6)
    decay = -np.log(alphas_of(inference_gammas("linear", 20, 0.9999, 1e-3)))[1:]
    np.testing.assert_allclose(decay / decay[0], np.arange(1, 20), rtol=1e-6)
    growth = np.diff(np.log(-np.log(alphas_of(inference_gammas("geometric", 20, 0.9999, 1e-3)))))
    np.testing.assert_allclose(growth, growth[0], rtol=1e-6)


@pytest.mark.parametrize(
    ("gammas", "reason"),
    [
        ([0.9, 0.5], "gammas\\[0\\] == 1"),
        ([1.0], "at least one step"),
        ([1, 0.5, 0.6], "fall strictly; they rise after t = 1"),
        ([1, 0.5, 0.5], "fall strictly"),
        ([1, 0.5, -0.1], r"stay in \(0, 1\]"),
        ([1, 0.5, 1e-5], "below the smallest noise level trained"),
    ],
)
def test_what_is_no_schedule_is_refused_with_the_reason(gammas, reason):
    with pytest.raises(ConfigError, match=reason):
        check_gammas(np.array(gammas), smallest_trained=1e-4)


def test_respacing_keeps_the_ends_and_refuses_more_steps_than_trained():
    gammas = training_gammas(NoiseScheduleConfig(num_steps=100))
    assert respace(gammas, 100) is not gammas
    np.testing.assert_array_equal(respace(gammas, 100), gammas)
    few = respace(gammas, 7)
    assert (few[0], few[-1], len(few)) == (1, gammas[-1], 8)
    with pytest.raises(ConfigError, match="num_steps: 101"):
        respace(gammas, 101)


def test_a_schedule_file_comes_back_exactly():
    schedule = default_schedule(NoiseScheduleConfig(), 25, SamplerConfig(variance=0.3))
    assert schedule_from_json(schedule.to_json(), "here") == schedule


def test_a_schedule_file_of_another_version_or_kind_is_refused():
    schedule = default_schedule(NoiseScheduleConfig(), 3)
    other = {**json.loads(schedule.to_json()), "format_version": 99}
    with pytest.raises(CheckpointError, match="version 99, this program reads 2"):
        schedule_from_json(json.dumps(other), "here.json")
    with pytest.raises(CheckpointError, match=r"here\.json is not a schedule"):
        schedule_from_json("not json", "here.json")
    with pytest.raises(ConfigError, match="gammas must fall"):
        InferenceSchedule(gammas=(1.0, 0.5, 0.7))


@pytest.mark.parametrize(("was", "now"), [(True, "static"), (False, "none")])
def test_a_schedule_file_of_version_1_is_read(was, now):
    old = {
        "gammas": [1.0, 0.5, 0.1],
        "sampler": {"algorithm": "ddim", "variance": 1.0, "eta": 0.25, "clip": was},
        "name": "best-2",
        "format_version": 1,
        "provenance": {"seed": 3},
    }
    expected = InferenceSchedule(
        gammas=(1.0, 0.5, 0.1),
        sampler=SamplerConfig(algorithm="ddim", eta=0.25, clip=now),
        name="best-2",
        provenance={"seed": 3},
    )
    assert schedule_from_json(json.dumps(old), "old.json") == expected


def test_the_trained_schedule_has_no_more_levels_than_were_trained():
    with pytest.raises(ConfigError, match=r"num_steps: 30 is not in 1..20, the steps of the trained schedule"):
        default_schedule(NoiseScheduleConfig(num_steps=20), 30)


@pytest.mark.parametrize(("algorithm", "cost"), [("ancestral", 50), ("ddim", 50), ("dpmpp_2m", 50), ("heun", 99)])
def test_a_schedule_knows_what_it_costs(algorithm, cost):
    sampler = SamplerConfig(algorithm=algorithm)
    schedule = default_schedule(NoiseScheduleConfig(), 50, sampler)
    assert (schedule.num_steps, schedule.num_evaluations) == (50, cost)
    assert sampler.num_steps_within(cost) == sampler.num_steps_within(cost + 1) - (algorithm != "heun") == 50
