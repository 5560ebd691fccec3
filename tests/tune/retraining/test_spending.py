"""Chance promotes next to nothing, however many nights there are; each night decides by other images."""

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tune.retraining.settings import PromotionConfig
from tune.retraining.spending import Turn, parts_of, turn_of

KEYS = [f"image-{number:04d}" for number in range(400)]


def chance(turn: int, config: PromotionConfig) -> float:
    """That a model which is as good is promoted at a comparison: the interval's lower tail."""
    return (1 - Turn(turn).level(config)) / 2


@pytest.mark.parametrize("config", [PromotionConfig(), PromotionConfig(level=0.9, num_comparisons=7)])
def test_all_comparisons_with_one_model_together_have_the_chance_that_was_asked_for(config: PromotionConfig) -> None:
    spent = sum(chance(turn, config) for turn in range(1, 5000))
    assert spent <= 1 - config.level
    assert spent == pytest.approx(1 - config.level, rel=0.01)


def test_a_month_of_nights_has_half_of_it_in_equal_shares() -> None:
    config = PromotionConfig()
    month = [chance(turn, config) for turn in range(1, 31)]
    assert np.ptp(month) == 0
    assert sum(month) == pytest.approx(0.025)
    assert chance(31, config) == pytest.approx(month[0] / 2)


def version(name: str, retraining: str, against: str | None) -> Any:
    return SimpleNamespace(name=name, retraining=retraining, metrics={"comparison": {"against": against}})


def test_the_registry_remembers_how_often_a_promoted_model_was_compared_with() -> None:
    known = [version("v0001", "a", None), version("v0002", "b", "v0001"), version("v0003", "c", "v0001")]
    assert turn_of(known, "v0001", "d") == Turn(3)
    assert turn_of(known, "v0001", "c") == Turn(2), "what this retraining published before it was killed is itself"
    assert turn_of(known, "v0003", "d") == Turn(1), "a promotion begins anew"
    old: Any = SimpleNamespace(name="v0000", retraining="z", metrics={"values": {}})
    assert turn_of([old, *known], "v0001", "d") == Turn(3)


def test_sealed_images_are_sealed_for_ever_and_decide_never() -> None:
    nights = [parts_of(KEYS, Turn(number)) for number in range(1, 9)]
    assert len({parts.sealed for parts in nights}) == 1
    assert 0.15 < len(nights[0].sealed) / len(KEYS) < 0.35
    assert not any(set(parts.deciding) & set(parts.sealed) for parts in nights)
    more = parts_of(["new", *KEYS], Turn(1))
    assert {["new", *KEYS][place] for place in more.sealed} >= {KEYS[place] for place in nights[0].sealed}


def test_the_others_take_turns() -> None:
    nights = [set(parts_of(KEYS, Turn(number)).deciding) for number in range(1, 5)]
    assert set.union(*nights) == set(range(len(KEYS))) - set(parts_of(KEYS, Turn(1)).sealed)
    for one, other in pairwise(nights):
        assert 0.5 < len(one & other) / len(one) < 0.8
    assert set(parts_of(KEYS, Turn(5)).deciding) == nights[0]


def test_few_images_all_decide() -> None:
    parts = parts_of(KEYS[:63], Turn(3))
    assert (parts.deciding, parts.sealed) == (tuple(range(63)), ())
