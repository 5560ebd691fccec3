"""What a sample of fields consists of: its channels, and how their physical values become the network's."""

import math
from dataclasses import dataclass
from typing import Literal

from sr3core.hyperparameters import require

Transform = Literal["none", "log1p", "quantile", "range"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Channel:
    """One variable of a sample: t2m, or the red band of a satellite."""

    name: str
    """Its name. A low-resolution channel that has the name of a high-resolution one is what that one is made from."""
    units: str = ""
    """Unit of its values, as the source states it."""
    transform: Transform = "none"
    """What is applied before the values are standardised. log1p: log(1 + x), for precipitation. quantile: normal
    scores. range: lowest..highest becomes [-1, 1], and nothing is standardised; for images."""
    mean: float = 0.0
    """Mean of the transformed training values."""
    std: float = 1.0
    """Standard deviation of the transformed training values."""
    minimum: float | None = None
    """Smallest training value."""
    maximum: float | None = None
    """Largest training value."""
    lowest: float | None = None
    """Bound that outputs are raised to, such as 0 for precipitation; None for none."""
    highest: float | None = None
    """Bound that outputs are lowered to; None for none."""
    levels: tuple[float, ...] = ()
    """quantile: values at evenly spaced probabilities, in increasing order."""

    def __post_init__(self) -> None:
        require(bool(self.name), "name: a channel needs one")
        require(0 < self.std < math.inf, f"std of {self.name}: {self.std} is not positive and finite")
        require(
            self.transform != "range" or (self.lowest is not None and self.highest is not None),
            f"transform of {self.name}: range needs both bounds, such as {self.name}=0:65535 after --bounds",
        )
        require(
            self.lowest is None or self.highest is None or self.lowest < self.highest,
            f"bounds of {self.name}: {self.lowest} is not below {self.highest}",
        )
        require(
            self.transform != "quantile" or len(self.levels) >= 2,
            f"levels of {self.name}: a quantile transform needs two at least",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleSpec:
    """The channels of a prepared stage's samples."""

    high: tuple[Channel, ...]
    """What is made."""
    low: tuple[Channel, ...]
    """The low-resolution input."""
    static: tuple[Channel, ...] = ()
    """Maps on the high-resolution grid that are known beforehand, such as orography."""
    has_mask: bool = False
    """Whether samples say where their high-resolution values are known."""
    valid_share: float = 1.0
    """Share of the training values that is known, (0, 1]."""

    def __post_init__(self) -> None:
        require(bool(self.high) and bool(self.low), "high, low: a sample needs a channel of each at least")
        require(0 < self.valid_share <= 1, f"valid_share: {self.valid_share} is not in (0, 1]")
        for part in ("high", "low", "static"):
            names = [channel.name for channel in getattr(self, part)]
            require(len(set(names)) == len(names), f"{part}: the names {names} are not all different")
        ours = {channel.name: channel for channel in self.high}
        for channel in self.low:
            require(
                ours.get(channel.name, channel) == channel,
                f"low: {channel.name} differs from the high-resolution channel of that name, so the two are not one"
                " quantity",
            )

    @property
    def is_bounded(self) -> bool:
        """Whether all values made lie in known bounds, as those of images do: then outputs are clipped to them."""
        return all(channel.transform == "range" for channel in self.high)

    @property
    def further(self) -> tuple[Channel, ...]:
        """The low-resolution channels that are not made."""
        names = {channel.name for channel in self.high}
        return tuple(channel for channel in self.low if channel.name not in names)

    @property
    def num_extra(self) -> int:
        """Channels of the network's condition besides those of what it makes."""
        return len(self.further) + len(self.static)
