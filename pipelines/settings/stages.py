"""Names of stages, such as 16-128 and base-64, and of the splits of a data set."""

import re
from dataclasses import dataclass
from typing import Literal, get_args

from sr3core.hyperparameters import require

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)


@dataclass(frozen=True, kw_only=True, slots=True)
class StageSpec:
    """A super-resolution stage or base model to prepare shards for."""

    name: str
    """Its name and that of its folder: "16-128", "base-64"."""
    low_size: int | None
    """Side of the low-resolution image, pixels; None for a base model, which has none."""
    high_size: int
    """Side of the high-resolution image, pixels."""


def parse_stages(text: str) -> tuple[StageSpec, ...]:
    """Parse stages such as "16-128,64-256,base-64".

    Raises:
        ConfigError: a stage is neither LOW-HIGH nor base-SIZE, it does not enlarge, or it is named twice.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    require(bool(names), "stages: at least one is needed, such as 16-128 or base-64")
    require(len(set(names)) == len(names), f"stages: {text!r} names a stage twice")
    return tuple(_parse_stage(name) for name in names)


def _parse_stage(name: str) -> StageSpec:
    match = re.fullmatch(r"(base|[1-9]\d*)-([1-9]\d*)", name)
    require(match is not None, f"stages: {name!r} is neither LOW-HIGH, such as 16-128, nor base-SIZE, such as base-64")
    assert match is not None
    low_size = None if match[1] == "base" else int(match[1])
    high_size = int(match[2])
    require(
        low_size is None or high_size > low_size,
        f"stages: {name!r}: the high size must be larger than the low size",
    )
    return StageSpec(name=name, low_size=low_size, high_size=high_size)
