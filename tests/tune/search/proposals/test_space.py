"""The space of schedules: valid by construction."""

from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sr3core.diffusion.schedules import (
    FAMILIES,
    check_gammas,
    inference_gammas,
    schedule_from_json,
    training_gammas,
)
from sr3core.errors import ConfigError
from sr3core.hyperparameters import Clipping, NoiseScheduleConfig, SamplerAlgorithm, SamplerConfig
from tune.search.proposals.defaults import defaults
from tune.search.proposals.space import (
    NOISE_FIRST,
    RANDOMNESS,
    SHAPES,
    RefinementSpace,
    SearchSpace,
    decode,
    distributions,
    make_schedule,
    propose,
)
from tune.search.settings import NUM_DEFAULTS

TRAINED = NoiseScheduleConfig()
SMALLEST = float(training_gammas(TRAINED)[-1])

points = st.fixed_dictionaries(
    {
        "family": st.sampled_from(FAMILIES),
        "sampler": st.sampled_from(get_args(SamplerAlgorithm)),
        "clip": st.sampled_from(get_args(Clipping)),
        "shape": st.floats(*SHAPES),
        "noise_first": st.floats(*NOISE_FIRST),
        "gamma_last": st.floats(SMALLEST, 1e-2),
        "randomness": st.floats(0, 1),
    }
)
unit = st.floats(0, 1)


@given(points, st.integers(1, 2000))
def test_every_point_is_a_schedule_that_the_network_was_trained_for(point: dict, budget: int) -> None:
    schedule = SearchSpace((budget,), SMALLEST).schedule(point)
    gammas = check_gammas(np.array(schedule.gammas), SMALLEST)  # falls strictly, in (0, 1], not below the smallest
    assert budget - 1 <= schedule.num_evaluations <= budget
    assert schedule.num_steps == (schedule.num_evaluations if point["sampler"] != "heun" else (budget + 1) // 2)
    assert gammas[-1] == point["gamma_last"]
    if schedule.num_steps > 1:
        assert gammas[1] == 1 - point["noise_first"]
    assert schedule.sampler.algorithm == point["sampler"]
    assert schedule.sampler.clip == point["clip"]
    if knob := RANDOMNESS.get(point["sampler"]):
        assert getattr(schedule.sampler, knob) == point["randomness"]
    assert schedule_from_json(schedule.to_json(), "test") == schedule


@given(
    st.fixed_dictionaries(
        {
            name: st.floats(-10, 10)
            for name in ("family", "sampler", "clip", "shape", "noise_first", "gamma_last", "randomness")
        }
    ),
    st.floats(1e-12, 0.49),
)
def test_numbers_of_any_size_decode_to_a_schedule(point: dict, smallest: float) -> None:
    """CMA-ES knows only numbers, and proposes some out of range."""
    schedule = SearchSpace((25,), smallest).schedule(point)
    check_gammas(np.array(schedule.gammas), smallest)


@given(points, st.floats(-10, 10), st.sampled_from(["noise", "input", 0.0, 0.7]), st.integers(1, 100))
def test_a_chain_from_the_input_starts_anywhere_between_noise_and_its_image(point, signal, start, budget) -> None:
    space = SearchSpace((budget,), SMALLEST, largest_noise_first=0.5, starts=("noise", "input"))
    schedule = space.schedule(point | {"start": start, "signal_start": signal, "noise_first": 0.5})
    check_gammas(np.array(schedule.gammas), SMALLEST)
    assert schedule.sampler.start == ("noise" if start in ("noise", 0.0) else "input")
    if schedule.sampler.start == "input":
        assert SMALLEST <= schedule.gammas[-1] <= 0.95**2 + 1e-12
        refined = RefinementSpace(schedule, SMALLEST)
        for share in (0.0, 1.0):
            bent = {name: low + share * (high - low) for name, (low, high, _) in refined.ranges.items()}
            check_gammas(np.array(refined.schedule(bent).gammas), SMALLEST)


def test_a_steep_schedule_that_moves_towards_no_noise_keeps_all_its_levels_apart() -> None:
    """Its first levels are 1e-11 apart, which vanishes beside a first level of 1 - 1e-6."""
    base = make_schedule(
        inference_gammas("quadratic", 63, 0.5, SMALLEST, shape=3.0), SamplerConfig(), "steep", SMALLEST
    )
    space = RefinementSpace(base, SMALLEST)
    schedule = space.schedule({name: low for name, (low, _, _) in space.ranges.items()})
    assert schedule.gammas[1] == 1 - 1e-6
    check_gammas(np.array(schedule.gammas), SMALLEST)


def test_the_levels_of_the_other_start_are_not_asked_for() -> None:
    space = SearchSpace((10,), SMALLEST, starts=("noise", "input"))
    for start, other in (("noise", "signal_start"), ("input", "gamma_last")):
        asked = space.ranges_of({"start": start, "sampler": "ddim"})
        assert other not in asked
        assert len(asked) == 4
    assert "signal_start" not in SearchSpace((10,), SMALLEST).ranges
    assert "gamma_last" not in SearchSpace((10,), SMALLEST, starts=("input",)).ranges


def test_optuna_proposes_points_of_the_space() -> None:
    import optuna

    space = SearchSpace((10,), SMALLEST)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(20):
        trial = study.ask(distributions(space))
        assert space.schedule(trial.params).num_evaluations in (9, 10)


def test_optuna_is_not_asked_for_what_has_no_effect() -> None:
    """A sampler without randomness must not teach an algorithm anything about it."""
    import optuna

    space = SearchSpace((10,), SMALLEST)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    seen = set()
    for _ in range(40):
        trial = study.ask()
        propose(space, trial)
        assert ("randomness" in trial.params) == (trial.params["sampler"] != "dpmpp_2m")
        assert decode(space, trial.params) == trial.params
        seen.add(trial.params["sampler"])
    assert seen == set(space.samplers)


@given(points, st.floats(0, 1))
def test_a_number_without_effect_changes_nothing(point: dict, other: float) -> None:
    space = SearchSpace((10,), SMALLEST)
    point["sampler"] = "dpmpp_2m"
    assert space.schedule(point) == space.schedule(point | {"randomness": other})


@given(st.integers(1, 100))
def test_defaults_are_schedules_of_the_trained_range(budget: int) -> None:
    found = defaults(TRAINED, budget)
    assert [schedule.name for schedule in found] == [
        "trained-respaced",
        "wavegrad-like",
        "palette-like",
        "ddim",
        "dpmpp-2m",
        "heun-karras",
    ]
    assert len(found) == NUM_DEFAULTS
    for schedule in found:
        check_gammas(np.array(schedule.gammas), SMALLEST)
        assert budget - 1 <= schedule.num_evaluations <= budget
        edms = schedule.name in ("dpmpp-2m", "heun-karras")
        assert schedule.gammas[-1] == pytest.approx(max(SMALLEST, 1 / (1 + 80**2)) if edms else SMALLEST)


def test_defaults_have_the_growth_they_are_named_after() -> None:
    by_name = {schedule.name: np.array(schedule.gammas) for schedule in defaults(TRAINED, 50)}
    rates = {name: -np.diff(np.log(gammas)) for name, gammas in by_name.items()}
    wavegrad = rates["wavegrad-like"]
    assert wavegrad[0] == pytest.approx(1e-6, rel=1e-5)
    np.testing.assert_allclose(wavegrad[1:] / wavegrad[:-1], wavegrad[1] / wavegrad[0], rtol=1e-6)
    palette = rates["palette-like"]
    assert palette[-1] / palette[0] == pytest.approx(900, rel=1e-6)
    np.testing.assert_allclose(np.diff(palette), np.diff(palette)[0], rtol=1e-6)
    levels = by_name["dpmpp-2m"][1:]
    np.testing.assert_allclose(np.diff(np.log(levels / (1 - levels)), n=2), 0, atol=1e-6)
    levels = by_name["heun-karras"][1:]
    assert len(levels) == 25
    np.testing.assert_allclose(np.diff(((1 - levels) / levels) ** (1 / 14), n=2), 0, atol=1e-6)


def test_grid_points_differ_and_decode() -> None:
    space = SearchSpace((25,), SMALLEST)
    points = space.grid(50, seed=3)
    assert points == space.grid(50, seed=3) != space.grid(50, seed=4)
    assert len({str(point) for point in points}) == 50
    assert len({space.schedule(point).name for point in points}) == 50
    everything = space.grid(10**6, seed=0)
    assert len({space.schedule(point).name for point in everything}) == len(everything)


def test_a_training_that_hardly_adds_noise_cannot_be_searched() -> None:
    with pytest.raises(ConfigError, match="noise_schedule: it ends at gamma 1"):
        SearchSpace.of(NoiseScheduleConfig(num_steps=2, beta_last=1e-5), (2,), ("ancestral",))


def test_an_unknown_choice_is_named() -> None:
    point = SearchSpace((5,), SMALLEST).grid(1, 0)[0] | {"family": "cubic"}
    with pytest.raises(ConfigError, match="cubic"):
        SearchSpace((5,), SMALLEST).schedule(point)


@given(st.integers(1, 12), st.data())
def test_refinement_moves_every_step_and_stays_a_schedule(num_steps: int, data: st.DataObject) -> None:
    base = data.draw(st.sampled_from(defaults(TRAINED, num_steps)))
    space = RefinementSpace(base, SMALLEST)
    point = {name: data.draw(st.floats(-2, 2)) for name in space.ranges}
    schedule = space.schedule(point)
    check_gammas(np.array(schedule.gammas), SMALLEST)
    assert schedule.num_steps == base.num_steps
    assert schedule.sampler.algorithm == base.sampler.algorithm
    assert schedule.sampler.clip == base.sampler.clip


@pytest.mark.parametrize("num_steps", [1, 2, 10])
def test_the_centre_of_a_refinement_is_its_base(num_steps: int) -> None:
    for base in defaults(TRAINED, num_steps):
        if num_steps > 1 and 1 - base.gammas[1] > 0.5:
            continue  # the first level of very few steps lies outside the range, and is moved to its end
        space = RefinementSpace(base, SMALLEST)
        np.testing.assert_allclose(space.schedule(space.centre).gammas, base.gammas, rtol=1e-9)


def test_the_number_of_steps_is_a_choice_where_there_are_some() -> None:
    space = SearchSpace((5, 10), SMALLEST)
    schedules = [space.schedule(point) for point in space.grid(20, 0)]
    assert {schedule.num_steps for schedule in schedules if schedule.sampler.algorithm != "heun"} == {5, 10}
    assert {schedule.num_evaluations for schedule in schedules if schedule.sampler.algorithm == "heun"} <= {5, 9}
    assert all(schedule.name.endswith(("-5", "-10")) for schedule in schedules)


def test_the_space_reaches_the_first_level_of_the_respaced_default() -> None:
    """At few steps the trained schedule respaced starts noisier than 1e-3: the space must contain its levels."""
    for num_steps in (10, 25, 100):
        noise = 1 - defaults(TRAINED, num_steps)[0].gammas[1]
        assert SearchSpace.of(TRAINED, (num_steps,), ("ddim",)).ranges["noise_first"][1] >= noise
