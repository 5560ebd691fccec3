"""Choosing a schedule: one that starts from the input, from a number, a file, or the best; what is refused."""

from dataclasses import replace

import pytest

from pipelines.runs.stage_schedules import check_schedule_file, choose_schedule
from pipelines.settings.locations import split_start
from sr3core.diffusion.schedules import default_schedule
from sr3core.errors import ConfigError
from tests.sr3core.tiny_models import BASE, REGRESSION, SR3


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "best-20.json").write_text(default_schedule(SR3.noise_schedule, 20).to_json())
    return tmp_path


@pytest.mark.parametrize("before", ["", "20", "best-20", "{folder}/best-20.json"])
def test_any_choice_can_start_from_the_input(folder, before):
    found = choose_schedule(folder, SR3, before.format(folder=folder) + "@0.3")
    assert found is not None
    assert (found.sampler.start, found.gammas[-1]) == ("input", 0.3)
    assert found.gammas[1:-1] == default_schedule(SR3.noise_schedule, 20).gammas[1 : found.num_steps]


def test_without_it_nothing_changes(folder):
    whole = default_schedule(SR3.noise_schedule, 20)
    assert choose_schedule(folder, SR3, "20") == whole
    assert replace(whole, name="best") == replace(choose_schedule(folder, SR3) or whole, name="best")


def test_a_regression_has_no_chain_and_a_base_model_no_input(folder):
    assert choose_schedule(folder, REGRESSION, "20@0.3") is None
    with pytest.raises(ConfigError, match=r"'20@0\.3' starts from an input, which a base model does not have"):
        choose_schedule(folder, BASE, "20@0.3")


@pytest.mark.parametrize("wanted", ["20@1.5", "20@nan", "20@0"])
def test_a_level_that_is_none_is_refused(folder, wanted):
    with pytest.raises(ConfigError, match="a start from the input at gamma"):
        choose_schedule(folder, SR3, wanted)


def test_a_file_may_have_the_sign_in_its_name(tmp_path):
    odd = tmp_path / "mine@0.2"
    odd.write_text(default_schedule(SR3.noise_schedule, 5).to_json())
    assert split_start(str(odd)) == (str(odd), None)
    assert split_start(f"{odd}@0.4") == (str(odd), 0.4)
    assert split_start("me@home") == ("me@home", None)
    check_schedule_file(f"{odd}@0.4")
    with pytest.raises(ConfigError, match="no/such is no file"):
        check_schedule_file("no/such@0.4")
