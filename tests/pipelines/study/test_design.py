"""The assignment of images to subjects: balanced by image and by side, for any numbers."""

from collections import Counter, defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.study.config import StudyConfig
from pipelines.study.design import Slot, assign
from sr3core.errors import ConfigError
from tests.study_subjects import small_config


@st.composite
def configs(draw: st.DrawFn) -> StudyConfig:
    images = draw(st.integers(1, 30))
    trials = draw(st.integers(1, images))
    return small_config(
        num_images=images,
        trials_per_subject=trials,
        subjects_per_model=draw(st.integers(1, 12)),
        num_attention_checks=draw(st.integers(0, min(trials, 4))),
        num_practice_trials=draw(st.integers(0, 3)),
        viewing_seconds=tuple(draw(st.lists(st.sampled_from((0.5, 3.0, 12.0)), min_size=1, max_size=2, unique=True))),
        seed=draw(st.integers(0, 2**31)),
    )


def slots_of(config: StudyConfig) -> list[Slot]:
    images = [f"image{number}" for number in range(config.num_images)]
    return assign(config, ["a", "b"], images, [f"spare{number}" for number in range(8)])


@given(configs())
def test_images_and_sides_are_balanced_for_every_subject_and_every_image(config):
    groups = defaultdict(list)
    for slot in slots_of(config):
        groups[slot.model, slot.viewing_seconds].append([t for t in slot.trials if t.kind == "trial"])
    assert len(groups) == 2 * len(config.viewing_seconds)
    for hands in groups.values():
        assert len(hands) == config.subjects_per_model
        shown, lefts = Counter(), Counter()
        for hand in hands:
            assert len({trial.image for trial in hand}) == len(hand) == config.trials_per_subject
            assert abs(sum(1 if trial.original_first else -1 for trial in hand)) <= 1
            shown.update(trial.image for trial in hand)
            lefts.update(trial.image for trial in hand if trial.original_first)
        counts = [shown[f"image{number}"] for number in range(config.num_images)]
        assert max(counts) - min(counts) <= 1
        assert all(abs(2 * lefts[image] - count) <= 1 for image, count in shown.items())


@given(configs())
def test_practice_comes_first_and_nobody_sees_an_image_twice(config):
    for slot in slots_of(config):
        kinds = [trial.kind for trial in slot.trials]
        assert kinds[: config.num_practice_trials] == ["practice"] * config.num_practice_trials
        assert kinds.count("practice") == config.num_practice_trials
        assert kinds.count("check") == config.num_attention_checks
        assert len(kinds) == config.num_positions
        assert len({trial.image for trial in slot.trials}) == len(kinds)


def test_checks_are_spread_over_the_whole_visit():
    config = small_config(num_images=40, trials_per_subject=40, num_attention_checks=4, num_practice_trials=0)
    for slot in slots_of(config):
        places = [index for index, trial in enumerate(slot.trials) if trial.kind == "check"]
        assert [place // 11 for place in places] == [0, 1, 2, 3]


def test_the_papers_study_is_the_default():
    config = StudyConfig(task=1)
    assert (config.num_images, config.subjects_per_model, config.trials_per_subject) == (100, 50, 50)
    assert config.viewing_seconds == (3.0,)
    images = [f"image{number}" for number in range(100)]
    slots = assign(
        config, ["SR3"], images, []
    )  # exactly 100 images: checks come from those that a subject is not shown
    assert len(slots) == 50
    shown = Counter(trial.image for slot in slots for trial in slot.trials if trial.kind == "trial")
    assert set(shown.values()) == {25}


def test_the_seed_decides():
    assert slots_of(small_config(seed=1)) == slots_of(small_config(seed=1))
    assert slots_of(small_config(seed=1)) != slots_of(small_config(seed=2))


def test_too_few_images_for_practice_and_checks_are_named():
    config = small_config(num_images=4, trials_per_subject=4)
    with pytest.raises(ConfigError, match="need 2 images that the subject is not shown otherwise, but only 1 remain"):
        assign(config, ["a"], ["1", "2", "3", "4"], ["5"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"trials_per_subject": 7},
            "trials_per_subject: 7 is more than num_images 6, and no subject sees an image twice; add `--trials-",
        ),
        ({"num_attention_checks": 5}, "num_attention_checks: 5 is more than trials_per_subject 4"),
        ({"subjects_per_model": 0}, "subjects_per_model: 0 is not positive"),
        ({"viewing_seconds": ()}, "viewing_seconds: name at least one"),
        ({"viewing_seconds": (3.0, 3.0)}, "a time is listed twice"),
        ({"viewing_seconds": (0.0,)}, "viewing_seconds: 0.0 is not within"),
        ({"viewing_seconds": (30.0,), "answer_within_minutes": 0.5}, "shorter than the viewing time"),
        ({"completion_url": "javascript:alert(1)"}, "does not begin with https://"),
        ({"participant_parameters": ("a b",)}, "'a b' is not a plain name"),
    ],
)
def test_numbers_out_of_range_are_named(changes, message):
    with pytest.raises(ConfigError, match=message.replace("(", r"\(")):
        small_config(**changes)


def test_the_duration_covers_every_pair_and_is_rounded_up() -> None:
    few = StudyConfig(task=1, num_images=4, trials_per_subject=4, num_attention_checks=1, num_practice_trials=1)
    assert few.minutes_per_subject == 1
    assert StudyConfig(task=1).minutes_per_subject == 6, "57 pairs of 3 + 3 seconds"
    assert StudyConfig(task=1, viewing_seconds=(3.0, 4.0)).minutes_per_subject == 7, "of the longer time"
