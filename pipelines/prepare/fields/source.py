"""The stores that a preparation reads, opened and checked: targets, inputs and static maps, sample by sample."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from pipelines.prepare.fields.alignment import check_aligned, check_not_shifted, rows_are_reversed, scale_of
from pipelines.prepare.fields.filling import coarsened, filled
from pipelines.settings.prepare import PrepareConfig
from pipelines.stores.opening import open_store
from pipelines.stores.store import Store, Times, Variable
from sr3core.errors import ConfigError, DataError
from sr3core.samples.spec import Channel
from sr3core.sizes import fits_in

_NUM_COMPARED = 8
_NUM_SHOWN = 3


@dataclass(frozen=True, slots=True)
class FieldSample:
    """A sample as it is read, on whole grids."""

    name: str
    high: np.ndarray
    """(C, H, W); 0 where it is not known."""
    low: np.ndarray
    """(C_in, h, w), without missing values."""
    valid: np.ndarray | None
    """Where high is known, bool (C, H, W); None if nothing may be missing."""
    block: int | None = None
    """Number of its block of time, by which splits are made and intervals computed; None without blocks."""


@dataclass(frozen=True, slots=True)
class FieldSource:
    """What is prepared."""

    config: PrepareConfig
    high_store: Store
    low_store: Store
    """The store of the input; high_store if the input is made of the target."""
    high_names: tuple[str, ...]
    low_names: tuple[str, ...]
    static_names: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """A name for each sample."""
        return self.high_store.names

    @property
    def times(self) -> Times | None:
        """Times of the samples; None if they are no series."""
        return self.high_store.times

    @property
    def scale(self) -> Fraction:
        """Ratio of the grids."""
        if self.config.coarsen:
            return Fraction(self.config.coarsen)
        return scale_of(self._high(0), self._low(0))

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the target, without what coarsening cuts off."""
        factor = self.config.coarsen or 1
        height, width = self._high(0).size
        return height // factor * factor, width // factor * factor

    def channels(self, part: str) -> tuple[Channel, ...]:
        """The channels of "high", "low" or "static", without statistics."""
        names = {"high": self.high_names, "low": self.low_names, "static": self.static_names}[part]
        store = self.low_store if part == "low" else self.high_store
        return tuple(self._channel(store.variables[name]) for name in names)

    def _channel(self, variable: Variable) -> Channel:
        lowest, highest = self.config.bounds_of.get(variable.name, (None, None))
        kind = self.config.transforms.get(variable.name, "range" if variable.dtype == np.uint8 else "none")
        if kind == "range" and variable.name not in self.config.bounds_of:
            lowest, highest = 0.0, 255.0
        levels = (0.0, 1.0) if kind == "quantile" else ()  # until they are measured
        return Channel(
            name=variable.name, units=variable.units, transform=kind, lowest=lowest, highest=highest, levels=levels
        )

    def static(self) -> np.ndarray | None:
        """The static maps, float32 (K, H, W); None without any.

        Raises:
            DataError: they hold missing values.
        """
        if not self.static_names:
            return None
        height, width = self.size
        maps = [self.high_store.read_map(name).astype(np.float32) for name in self.static_names]
        for name, values in zip(self.static_names, maps, strict=True):
            if np.isnan(values).any():
                raise DataError(f"{self.config.source}: {name} has missing values, and a static map must have none")
        return np.stack(maps)[:, :height, :width]

    def read(self, start: int, stop: int) -> list[FieldSample]:
        """The samples start..stop - 1.

        Raises:
            DataError: values are missing and may not be, or a store is damaged.
        """
        height, width = self.size
        if self.high_store.times is None and stop == start + 1:  # rasters differ in size
            height, width = 2**31, 2**31
        high = _stacked(self.high_store, self.high_names, start, stop)[..., :height, :width]
        if factor := self.config.coarsen:
            rows, columns = (side // factor * factor for side in high.shape[-2:])
            high = high[..., :rows, :columns]
            indices = [self.high_names.index(name) for name in self.low_names]
            low = np.stack([coarsened(sample[indices], factor) for sample in high])
        else:
            low = _stacked(self.low_store, self.low_names, start, stop)
            low = low[..., ::-1, :] if rows_are_reversed(self._high(0), self._low(0)) else low
        return [self._sample(start + i, high[i], low[i]) for i in range(stop - start)]

    def _sample(self, number: int, high: np.ndarray, low: np.ndarray) -> FieldSample:
        name = self.names[number]
        if self.config.missing == "refuse":
            self._refuse_missing(name, self.config.source, self.high_names, high)
            self._refuse_missing(name, self.config.low or self.config.source, self.low_names, low)
            return FieldSample(name, high, low, None, self._block(number))
        valid = ~np.isnan(high) if high.dtype.kind == "f" else np.ones(high.shape, bool)
        known = np.stack([filled(plane) for plane in low]) if low.dtype.kind == "f" else low
        return FieldSample(name, np.where(valid, high, high.dtype.type(0)), known, valid, self._block(number))

    def _block(self, number: int) -> int | None:
        if self.config.split_by != "time" or self.times is None:
            return None
        return int(self.times.seconds[number]) // self.config.block_seconds

    def _refuse_missing(self, name: str, place: str, names: Sequence[str], values: np.ndarray) -> None:
        for variable, plane in zip(names, values, strict=True):
            count = int((~np.isfinite(plane)).sum()) if plane.dtype.kind == "f" else 0
            if count:
                raise DataError(
                    f"{place}: {variable} of {name} has {count} missing values among {plane.size}; mask them with"
                    " `--missing mask`, so that they count neither in training nor in scores"
                )

    def _high(self, number: int) -> Variable:
        return self.high_store.variables[self.high_names[number]]

    def _low(self, number: int) -> Variable:
        return self.low_store.variables[self.low_names[number]]


def open_fields(config: PrepareConfig, checks: bool = True) -> FieldSource:
    """Open the stores of a preparation, and check that they fit together.

    Raises:
        ConfigError: a variable is not there, or the options do not fit the stores.
        DataError: the grids, times or units of target and input do not fit together, or a store is damaged.
    """
    high = open_store(config.source)
    low = open_store(config.low) if config.low and config.low != config.source else high
    names = config.names_of
    high_names = high.choose(names["high"], "high_variables")
    static_names = high.choose(names["static"], "static_variables") if names["static"] else ()
    if config.coarsen:
        low_names = names["low"] or high_names
        _refuse_other(low_names, high_names)
    else:
        if not names["low"] and low is high:
            raise ConfigError(
                f"low: what is the low-resolution input of {config.source}? Name its store with --low, its variables"
                " with --low-variables, or make it of the target with `--coarsen 4`"
            )
        low_names = low.choose(names["low"], "low_variables")
    source = FieldSource(config, high, low, high_names, low_names, static_names)
    if checks:
        _check(source)
    return source


def _refuse_other(low_names: Sequence[str], high_names: Sequence[str]) -> None:
    other = [name for name in low_names if name not in high_names]
    if other:
        raise ConfigError(f"low_variables: {other[0]} is not among the high-resolution ones, which --coarsen coarsens")


def _check(source: FieldSource) -> None:
    config, high, low = source.config, source.high_store, source.low_store
    if not source.names:
        raise DataError(f"{config.source} holds no samples: no variable has an axis of samples before rows and columns")
    for store, names in ((high, source.high_names + source.static_names), (low, source.low_names)):
        if config.absent_chunks == "refuse":
            store.check_whole(names)
    _check_one_grid(high, source.high_names + source.static_names)
    _check_stage(source)
    if config.coarsen:
        return
    _check_one_grid(low, source.low_names)
    _check_samples(source)
    _check_units(source)
    check_aligned(high.variables[source.high_names[0]], low.variables[source.low_names[0]], source.scale)
    _check_values(source)


def _check_one_grid(store: Store, names: Sequence[str]) -> None:
    sizes = {name: store.variables[name].size for name in names}
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{name} {size[0]}x{size[1]}" for name, size in sizes.items())
        raise DataError(f"{store.location}: the variables are on several grids: {listed}; name those of one")


def _check_stage(source: FieldSource) -> None:
    """Refuse a stage of another ratio, or of larger samples, than the stores have."""
    (stage,) = source.config.stage_specs
    wanted, (height, width) = stage.scale, source.size
    scale = source.scale
    side = min(height, width)
    fitting = f"{int(side / scale)}-{side}"
    hint = f"a stage such as {fitting}" if side % scale.numerator == 0 else f"a stage of {scale} times"
    if wanted != scale:
        raise ConfigError(f"stages: {stage.name} is {wanted} times, and the grids are {scale} times; take {hint}")
    if not fits_in(stage.high_size, source.size):
        raise ConfigError(f"stages: {stage.name} is larger than the grid of {height}x{width}; take {hint}, or smaller")


def _check_samples(source: FieldSource) -> None:
    high, low = source.high_store, source.low_store
    if high.times is not None and low.times is not None:
        same = np.array_equal(high.times.seconds, low.times.seconds)
    elif high.times is None and low.times is None:
        same = high.names == low.names
    else:
        same = high.num_samples == low.num_samples
    if same:
        return
    shown = [", ".join(_differing(store.names, other.names)) for store, other in ((high, low), (low, high))]
    raise DataError(
        f"the samples of target and input do not match: {high.num_samples} of {high.location} and {low.num_samples} of"
        f" {low.location}; only in the first: {shown[0] or 'none'}; only in the second: {shown[1] or 'none'}. Cut both"
        " to the samples that they share"
    )


def _differing(names: Sequence[str], others: Sequence[str]) -> list[str]:
    known = set(others)
    found = [name for name in names if name not in known]
    return found[:_NUM_SHOWN] + ["..."] * (len(found) > _NUM_SHOWN)


def _check_units(source: FieldSource) -> None:
    for name in set(source.high_names) & set(source.low_names):
        ours, theirs = source.high_store.variables[name].units, source.low_store.variables[name].units
        if ours != theirs:
            raise DataError(
                f"{name} is in {ours!r} in {source.high_store.location} and in {theirs!r} in"
                f" {source.low_store.location}: the two must have one unit"
            )


def _check_values(source: FieldSource) -> None:
    """Compare the values of some samples, spread over all, of each variable that target and input share."""
    numbers = np.unique(np.linspace(0, len(source.names) - 1, _NUM_COMPARED).astype(int)).tolist()
    samples = [source.read(number, number + 1)[0] for number in numbers]
    whole = [s for s in samples if s.valid is None or s.valid.all()]
    if not whole or len({sample.high.shape for sample in whole}) > 1:
        return
    for name in source.high_names:
        if name in source.low_names:
            high, low = source.high_names.index(name), source.low_names.index(name)
            check_not_shifted(name, np.stack([s.high[high] for s in whole]), np.stack([s.low[low] for s in whole]))


def _stacked(store: Store, names: Sequence[str], start: int, stop: int) -> np.ndarray:
    """Variables of some samples, (N, C, H, W), of one type: theirs if it is one, else float32."""
    arrays = [store.read(name, start, stop) for name in names]
    dtype = arrays[0].dtype if len({array.dtype for array in arrays}) == 1 else np.dtype(np.float32)
    if dtype not in (np.dtype(t) for t in ("uint8", "uint16", "float16", "float32")):
        dtype = np.dtype(np.float32)
    return np.stack([array.astype(dtype) for array in arrays], axis=1)
