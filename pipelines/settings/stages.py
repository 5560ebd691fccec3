"""Names of stages, such as 16-128, 64x96-256x384 and base-64, and of the splits of a data set."""

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, get_args

from sr3core.hyperparameters import require, require_plain
from sr3core.sizes import Size, describe, ratio, sides_of

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
_SIDES = r"([1-9]\d*)(?:x([1-9]\d*))?"


@dataclass(frozen=True, kw_only=True, slots=True)
class StageSpec:
    """A super-resolution stage or base model to prepare shards for."""

    name: str
    """Its name and that of its folder: "16-128", "64x96-256x384", "base-64"."""
    low_size: Size | None
    """Side of the low-resolution image, pixels, or height and width; None for a base model, which has none."""
    high_size: Size
    """Side of the high-resolution image, pixels, or height and width."""

    @property
    def scale(self) -> Fraction | None:
        """How many times larger the high-resolution image is; None for a base model."""
        return None if self.low_size is None else ratio(self.high_size, self.low_size)


def stage_name(low_size: Size | None, high_size: Size) -> str:
    """The name of a stage, and of its folder in prepared data."""
    return f"{describe(low_size)}-{describe(high_size)}"


def parse_stages(text: str) -> tuple[StageSpec, ...]:
    """Parse stages such as "16-128,64x96-256x384,base-64".

    Raises:
        ConfigError: a stage is neither LOW-HIGH nor base-SIZE, it does not enlarge or distorts, or it is named twice.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    require(bool(names), "stages: at least one is needed, such as 16-128 or base-64")
    require(len(set(names)) == len(names), f"stages: {text!r} names a stage twice")
    return tuple(_parse_stage(name) for name in names)


def _parse_stage(name: str) -> StageSpec:
    match = re.fullmatch(rf"(?:base|{_SIDES})-{_SIDES}", name)
    require(
        match is not None,
        f"stages: {name!r} is neither LOW-HIGH, such as 16-128 or (height x width) 64x96-256x384, nor base-SIZE, such"
        " as base-64",
    )
    assert match is not None
    low_size, high_size = None if match[1] is None else _size(match[1], match[2]), _size(match[3], match[4])
    require_plain(f"stages: {name!r}", high_size)
    if low_size is not None:
        _check_enlarges(name, low_size, high_size)
    return StageSpec(name=name, low_size=low_size, high_size=high_size)


def _size(height: str, width: str | None) -> Size:
    return int(height) if width is None else (int(height), int(width))


def _check_enlarges(name: str, low_size: Size, high_size: Size) -> None:
    require_plain(f"stages: {name!r}", low_size)
    pairs = list(zip(sides_of(low_size), sides_of(high_size), strict=True))
    require(all(high > low for low, high in pairs), f"stages: {name!r}: the high size must be larger than the low size")
    require(
        ratio(high_size, low_size) is not None,
        f"stages: {name!r} enlarges the height {pairs[0][1] / pairs[0][0]:g} times and the width"
        f" {pairs[1][1] / pairs[1][0]:g} times; take one ratio",
    )
