"""Statistics of the channels: gathered shard by shard, merged over the training split in the order of its shards."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from pipelines.shards.fields import FieldRecord
from sr3core.errors import DataError
from sr3core.randomness import derive_seed
from sr3core.samples.spec import Channel, SampleSpec
from sr3core.samples.statistics import Moments, merge
from sr3core.samples.transforms import quantile_levels, transformed

NUM_QUANTILE_VALUES = 2**18
"""Values of a channel that a quantile transform is measured on, at most."""
_VALUES_PER_RECORD = 64
_FARTHEST = 10.0
"""Distance of a held-out split's mean from that of training, in standard deviations, that no real series has."""


@dataclass(slots=True)
class Measured:
    """Statistics of the records of a shard."""

    high: dict[str, Moments] = field(default_factory=dict)
    """Channel -> moments of its transformed values that are known."""
    low: dict[str, Moments] = field(default_factory=dict)
    drawn: dict[str, list[float]] = field(default_factory=dict)
    """Channel with a quantile transform -> some of its values, drawn by the records' keys."""
    num_valid: int = 0
    """Target values that are known."""
    num_values: int = 0
    """Target values."""

    def add(self, record: FieldRecord, high: Sequence[Channel], low: Sequence[Channel]) -> None:
        """Count a record."""
        for number, channel in enumerate(high):
            values = record.high[number]
            known = values if record.valid is None else values[record.valid[number]]
            self._add(self.high, channel, known, record.key)
            self.num_valid += known.size
            self.num_values += values.size
        for number, channel in enumerate(low):
            self._add(self.low, channel, record.low[number], record.key)

    def _add(self, found: dict[str, Moments], channel: Channel, values: np.ndarray, key: str) -> None:
        raw = replace(channel, transform="none") if channel.transform == "quantile" else channel
        if channel.transform == "log1p" and values.size and values.min() <= -1:
            raise DataError(f"{channel.name}: log1p needs values above -1, and one is {values.min()}; use another")
        found[channel.name] = found.get(channel.name, Moments()).merged(Moments.of(transformed(values, raw)))
        if channel.transform == "quantile" and values.size:
            rng = np.random.Generator(np.random.Philox(derive_seed(0, "quantiles", channel.name, key)))
            drawn = rng.choice(values.ravel(), min(_VALUES_PER_RECORD, values.size), replace=False)
            self.drawn.setdefault(channel.name, []).extend(float(value) for value in drawn)

    def to_json(self) -> dict[str, Any]:
        """As a shard's index holds it."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Measured":
        """What to_json made."""
        moments = {part: {name: Moments(**m) for name, m in data[part].items()} for part in ("high", "low")}
        return cls(moments["high"], moments["low"], data["drawn"], data["num_valid"], data["num_values"])


def measured_spec(
    high: Sequence[Channel],
    low: Sequence[Channel],
    static: Sequence[Channel],
    maps: np.ndarray | None,
    training: Sequence[Measured],
    has_mask: bool,
) -> SampleSpec:
    """The channels with the statistics of the training split. A low-resolution channel of a target's name has its.

    Args:
        high, low, static: the channels without statistics.
        maps: the static maps, (K, H, W).
        training: of each training shard, in their order.
        has_mask: whether values may be missing.

    Raises:
        DataError: a channel is constant, or nothing is known of it.
    """
    made = {channel.name: _measured(channel, [part.high for part in training], training) for channel in high}
    inputs = [made.get(c.name) or _measured(c, [part.low for part in training], training) for c in low]
    num_values = sum(part.num_values for part in training)
    return SampleSpec(
        high=tuple(made.values()),
        low=tuple(inputs),
        static=tuple(_filled(c, Moments.of(maps[i])) for i, c in enumerate(static)) if maps is not None else (),
        has_mask=has_mask,
        valid_share=sum(part.num_valid for part in training) / max(num_values, 1) or 1.0,
    )


def _measured(channel: Channel, parts: Sequence[dict[str, Moments]], training: Sequence[Measured]) -> Channel:
    moments = merge(part.get(channel.name, Moments()) for part in parts)
    if channel.transform == "quantile":
        drawn = [value for part in training for value in part.drawn.get(channel.name, ())]
        every = -(-len(drawn) // NUM_QUANTILE_VALUES) or 1
        _refuse_constant(channel, moments)
        return replace(
            channel, levels=quantile_levels(np.array(drawn[::every])), minimum=moments.minimum, maximum=moments.maximum
        )
    return _filled(channel, moments)


def _filled(channel: Channel, moments: Moments) -> Channel:
    _refuse_constant(channel, moments)
    ends = (float(np.expm1(m)) if channel.transform == "log1p" else m for m in (moments.minimum, moments.maximum))
    minimum, maximum = ends
    if channel.transform == "range":
        return replace(channel, minimum=minimum, maximum=maximum)
    return replace(channel, mean=moments.mean, std=moments.std, minimum=minimum, maximum=maximum)


def _refuse_constant(channel: Channel, moments: Moments) -> None:
    if not moments.count:
        raise DataError(f"{channel.name}: no value of the training split is known")
    if moments.minimum == moments.maximum:
        raise DataError(
            f"{channel.name} is {moments.minimum:g} in all training samples: a constant channel teaches nothing, and"
            " cannot be standardised; leave it out"
        )


def check_splits_agree(training: Sequence[Measured], held_out: Sequence[Measured], split: str) -> None:
    """Check that a held-out split has the units of the training split.

    Raises:
        DataError: the means of a channel are further apart than any real series has them.
    """
    for part in ("high", "low"):
        for name in getattr(training[0], part) if training else ():
            ours, theirs = (merge(getattr(m, part).get(name, Moments()) for m in ms) for ms in (training, held_out))
            if ours.count and theirs.count and abs(theirs.mean - ours.mean) > _FARTHEST * max(ours.std, theirs.std):
                raise DataError(
                    f"{name} has a mean of {theirs.mean:g} in the {split} samples and of {ours.mean:g} in the training"
                    f" samples, whose standard deviation is {ours.std:g}: do their units differ?"
                )
