"""A search takes the held-out images that there are, and says what so many can tell."""

from typing import Any

import pytest

from tests.tune.search.tiny_search import TinyRun, make_config
from tune.search.objective.held_out_images import fit_to_images
from tune.search.settings import SearchConfig


def fitted(run: TinyRun, monkeypatch: Any, held_out: dict[str, int], **changes: Any) -> tuple[SearchConfig, str]:
    """A search fitted to so many images per split, and what was reported."""
    monkeypatch.setattr("tune.search.objective.held_out_images.num_held_out", lambda stage, split: held_out[split])
    lines: list[str] = []
    found = fit_to_images(run.stage, make_config(**changes), lines.append)
    return found, "\n".join(lines)


def test_the_images_that_there_are_are_used_with_a_warning(tiny_run: TinyRun, monkeypatch: Any) -> None:
    found, told = fitted(tiny_run, monkeypatch, {"validation": 7, "test": 8}, num_images=256)
    assert (found.num_images, found.confirm_split) == (7, "test")
    assert "only 7 validation images are held out: judging by these, not by 256" in told
    assert "7 images rank no schedules, by any distance: KID needs 16, FID more" in told


def test_enough_images_change_and_say_nothing(tiny_run: TinyRun, monkeypatch: Any) -> None:
    wanted = {"num_images": 10_000}
    found, told = fitted(tiny_run, monkeypatch, {"validation": 10_000, "test": 300}, **wanted)
    assert (found, told) == (make_config(**wanted), "")


@pytest.mark.parametrize(
    ("images", "objective", "words"),
    [
        (100, "fid", "objective fid needs 10,000 images, and there are 100: judging by FID extrapolated to infinitely"),
        (40, "fid", "and there are 40: judging by KID against other images; 64 are enough to extrapolate FID"),
        (40, "kid", ""),
        (8, "kid", "8 images rank no schedules, by any distance: KID needs 16"),
    ],
)
def test_an_objective_says_how_many_images_it_needs_and_what_is_done(
    tiny_run: TinyRun, monkeypatch: Any, images: int, objective: Any, words: str
) -> None:
    held_out = {"validation": images, "test": 8}
    _, told = fitted(tiny_run, monkeypatch, held_out, num_images=images, objective=objective)
    assert words in told
    assert bool(words) == bool(told)


def test_no_rung_judges_by_fewer_images_than_kid_needs(tiny_run: TinyRun, monkeypatch: Any) -> None:
    held_out = {"validation": 128, "test": 128}
    found, told = fitted(tiny_run, monkeypatch, held_out, num_images=128, num_rungs=3)
    assert found.rungs == (32, 128)
    assert "num_rungs: 3 would judge by 8 images first, which rank nothing: using 2, so that each has 16" in told


@pytest.mark.parametrize(("there", "images", "rungs"), [(300, 288, 3), (70, 64, 2), (31, 31, 1)])
def test_rungs_keep_whole_numbers_of_images(
    tiny_run: TinyRun, monkeypatch: Any, there: int, images: int, rungs: int
) -> None:
    held_out = {"validation": there, "test": 8}
    found, _ = fitted(tiny_run, monkeypatch, held_out, num_images=1024, num_rungs=3)
    assert (found.num_images, found.num_rungs) == (images, rungs)


def test_without_images_to_confirm_on_the_winner_is_not_confirmed(tiny_run: TinyRun, monkeypatch: Any) -> None:
    found, told = fitted(tiny_run, monkeypatch, {"validation": 300, "test": 0}, num_images=256)
    assert found.confirm_split is None
    assert "there are not 4 test images to confirm the winner on" in told
