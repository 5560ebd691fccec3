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
    assert "warning: 7 images tell good schedules from bad ones, but hardly from other good ones" in told


def test_enough_images_change_and_say_nothing(tiny_run: TinyRun, monkeypatch: Any) -> None:
    found, told = fitted(tiny_run, monkeypatch, {"validation": 300, "test": 300}, num_images=256)
    assert (found, told) == (make_config(num_images=256), "")


@pytest.mark.parametrize(("objective", "warns"), [("fid", True), ("kid", False)])
def test_fid_of_a_hundred_images_is_warned_of(tiny_run: TinyRun, monkeypatch: Any, objective: Any, warns: bool) -> None:
    _, told = fitted(tiny_run, monkeypatch, {"validation": 100, "test": 8}, num_images=100, objective=objective)
    assert ("smooth outputs look too good" in told) == warns


@pytest.mark.parametrize(("there", "images", "rungs"), [(70, 64, 3), (40, 32, 3), (31, 31, 1)])
def test_rungs_keep_whole_numbers_of_images(
    tiny_run: TinyRun, monkeypatch: Any, there: int, images: int, rungs: int
) -> None:
    held_out = {"validation": there, "test": 8}
    found, _ = fitted(tiny_run, monkeypatch, held_out, num_images=256, num_rungs=3)
    assert (found.num_images, found.num_rungs) == (images, rungs)


def test_without_images_to_confirm_on_the_winner_is_not_confirmed(tiny_run: TinyRun, monkeypatch: Any) -> None:
    found, told = fitted(tiny_run, monkeypatch, {"validation": 300, "test": 0}, num_images=256)
    assert found.confirm_split is None
    assert "there are not 4 test images to confirm the winner on" in told
