"""Settings of `sr3 prepare` for stores of arrays: which variables become samples, and how they are split."""

import re
from dataclasses import dataclass, field
from typing import Literal

from sr3core.config import ADDED
from sr3core.errors import ConfigError
from sr3core.hyperparameters import require
from sr3core.samples.spec import Transform

_SECONDS = {"s": 1, "min": 60, "h": 3600, "d": 86400}
_TRANSFORMS = ("none", "log1p", "quantile", "range")


@dataclass(frozen=True, kw_only=True, slots=True)
class FieldSettings:
    """What of a zarr, NetCDF, numpy or raster store becomes samples."""

    high_variables: tuple[str, ...] = field(default=(), metadata=ADDED)
    """Stores: variables, or bands, that the model makes: t2m,u10,v10. Empty: all that differ from sample to sample."""
    low_variables: tuple[str, ...] = field(default=(), metadata=ADDED)
    """Stores: variables of the low-resolution input. Empty: those of high_variables that are there."""
    static_variables: tuple[str, ...] = field(default=(), metadata=ADDED)
    """Stores: maps on the high-resolution grid that are known beforehand, such as orography; the input has them too."""
    coarsen: int = field(default=0, metadata=ADDED)
    """Stores: make the input of the high-resolution variables, by means over so many cells squared; 0 for a given
    input (--low)."""
    transform: tuple[str, ...] = field(default=(), metadata=ADDED)
    """Stores: NAME=log1p, quantile or range before a variable is standardised: tp=log1p for precipitation."""
    bounds: tuple[str, ...] = field(default=(), metadata=ADDED)
    """Stores: NAME=LOWEST:HIGHEST, within which outputs are kept; tp=0: bounds precipitation below."""
    missing: Literal["refuse", "mask"] = field(default="refuse", metadata=ADDED)
    """Stores: missing values (NaN, fill values, nodata) are refused, or masked: they then count neither in training nor
    in scores."""
    split_by: Literal["auto", "name", "time"] = field(default="auto", metadata=ADDED)
    """Stores: hold out samples by a hash of their names, or whole blocks of time; auto takes names where there is no
    time."""
    blocks: str = field(default="", metadata=ADDED)
    """Stores, by time: length of the blocks that are held out as a whole: 30d, 12h."""
    gap: str = field(default="0d", metadata=ADDED)
    """Stores, by time: training samples at most this far from a held-out one are left out."""
    absent_chunks: Literal["refuse", "fill"] = field(default="refuse", metadata=ADDED)
    """zarr: chunks that were never written are refused, or read as the array's fill value."""

    @property
    def names_of(self) -> dict[str, tuple[str, ...]]:
        """Names of the variables by "high", "low" and "static"."""
        parts = {"high": self.high_variables, "low": self.low_variables, "static": self.static_variables}
        return {part: split_names(names) for part, names in parts.items()}

    @property
    def transforms(self) -> dict[str, Transform]:
        """Transform of each variable that has one."""
        found: dict[str, Transform] = {}
        for name, kind in _pairs("transform", self.transform):
            if kind not in _TRANSFORMS:
                raise ConfigError(f"transform: {name}={kind}, known are {', '.join(_TRANSFORMS)}")
            found[name] = kind  # type: ignore[assignment]
        return found

    @property
    def bounds_of(self) -> dict[str, tuple[float | None, float | None]]:
        """Bounds of each variable that has some."""
        return {name: _bounds(name, text) for name, text in _pairs("bounds", self.bounds)}

    @property
    def gap_seconds(self) -> int:
        """The gap in seconds."""
        return seconds_of("gap", self.gap)

    @property
    def block_seconds(self) -> int:
        """Length of a block in seconds."""
        return seconds_of("blocks", self.blocks)

    def check_fields(self) -> None:
        """Check what of these settings can be checked without the store.

        Raises:
            ConfigError: a text cannot be read, or two of them exclude each other.
        """
        require(self.coarsen == 0 or self.coarsen >= 2, f"coarsen: {self.coarsen} is neither 0 nor at least 2")
        for name, kind in self.transforms.items():
            bounds = self.bounds_of.get(name, (None, None))
            require(
                kind != "range" or None not in bounds,
                f"transform: {name}=range needs both bounds, such as {name}=0:65535 after --bounds",
            )
        require(self.gap_seconds >= 0, f"gap: {self.gap} is negative")
        if self.split_by == "time":
            require(bool(self.blocks), "blocks: a split by time needs the length of its blocks, such as --blocks 30d")
            require(self.block_seconds > 0, f"blocks: {self.blocks} is not positive")

    def has_field_options(self) -> list[str]:
        """Names of the settings here that are not at their defaults."""
        defaults = FieldSettings()
        return [name for name in FieldSettings.__slots__ if getattr(self, name) != getattr(defaults, name)]


def split_names(names: tuple[str, ...]) -> tuple[str, ...]:
    """`t2m,u10 v10` as three names."""
    return tuple(name.strip() for text in names for name in text.split(",") if name.strip())


def seconds_of(option: str, text: str) -> int:
    """A duration such as 30d, 12h, 90min or 10s, in seconds.

    Raises:
        ConfigError: it is none.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(s|min|h|d)", text.strip())
    require(match is not None, f"{option}: {text!r} is no duration; write 30d, 12h, 90min or 10s")
    assert match is not None
    return round(float(match[1]) * _SECONDS[match[2]])


def _pairs(option: str, texts: tuple[str, ...]) -> list[tuple[str, str]]:
    found = [text.partition("=") for text in split_names(texts)]
    for name, sign, value in found:
        require(bool(name and sign and value), f"{option}: {name + sign + value!r} is not NAME=VALUE")
    return [(name, value) for name, _, value in found]


def _bounds(name: str, text: str) -> tuple[float | None, float | None]:
    low, sign, high = text.partition(":")
    try:
        lowest, highest = (float(part) if part else None for part in (low, high))
    except ValueError as error:
        raise ConfigError(f"bounds: {name}={text} is not NAME=LOWEST:HIGHEST") from error
    require(bool(sign), f"bounds: {name}={text} is not NAME=LOWEST:HIGHEST; either side may be empty")
    require(lowest is None or highest is None or lowest < highest, f"bounds: {name}={text} is empty")
    return lowest, highest
