"""How surely each of many comparisons must decide, and on which images, so that chance promotes next to nothing.

A retraining that is not better than the promoted model is compared every night. At 2.5% a night, more than half of all
months would promote one by chance. So a promoted model gets one budget of chance, 1 - level, for all that will ever be
compared with it: half of it in equal shares for the first num_comparisons, a quarter for as many after these, and so
on.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from pipelines.registry.registry import Version
from tune.retraining.settings import PromotionConfig

ENOUGH_TO_SEAL = 64
"""Held-out images below which all of them decide: parts of them would be too few."""
SEALED_SHARE = 4
"""One image in so many is sealed: it is only looked at when the others would promote."""
POOL_PARTS = 4
"""Parts of the other images, of which each comparison leaves another one out."""


@dataclass(frozen=True, slots=True)
class Turn:
    """Which comparison with the promoted model this is."""

    number: int
    """1 for the first."""

    def level(self, config: PromotionConfig) -> float:
        """Confidence level of this comparison's two-sided interval, whose lower end must lie above zero."""
        family = (self.number - 1) // config.num_comparisons
        chance = (1 - config.level) * 2.0 ** -(family + 1) / config.num_comparisons
        return 1 - 2 * chance


def turn_of(versions: Sequence[Version], against: str | None, retraining: str) -> Turn:
    """The next comparison with a promoted version, by what the registry remembers.

    Args:
        versions: of the registry.
        against: the promoted one.
        retraining: the one that asks; what it published before it was killed does not count.
    """
    known = [
        version
        for version in versions
        if version.retraining != retraining and version.metrics.get("comparison", {}).get("against") == against
    ]
    return Turn(len(known) + 1)


@dataclass(frozen=True, slots=True)
class Parts:
    """The held-out images of one comparison, as positions."""

    deciding: tuple[int, ...]
    sealed: tuple[int, ...]
    """Decide nothing unless the others would promote; empty where there are too few images."""


def parts_of(keys: Sequence[str], turn: Turn) -> Parts:
    """Divide held-out images; an image is sealed or not for ever, whatever else is held out.

    The deciding ones rotate, so that a model that was lucky on some images is not defended by the same ones each night.
    """
    if len(keys) < ENOUGH_TO_SEAL:
        return Parts(tuple(range(len(keys))), ())
    draws = [int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") for key in keys]
    sealed = [place for place, draw in enumerate(draws) if draw % SEALED_SHARE == 0]
    left_out = turn.number % POOL_PARTS
    deciding = [
        place
        for place, draw in enumerate(draws)
        if draw % SEALED_SHARE and draw // SEALED_SHARE % POOL_PARTS != left_out
    ]
    return Parts(tuple(deciding), tuple(sealed))
