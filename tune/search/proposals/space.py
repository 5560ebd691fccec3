"""The space of inference schedules: every point decodes to a valid schedule, by construction, without rejection."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any, Protocol, get_args

import numpy as np

from sr3core.config import fingerprint_of
from sr3core.diffusion.schedules import (
    FAMILIES,
    InferenceSchedule,
    check_gammas,
    default_schedule,
    inference_gammas,
    strictly_falling,
    training_gammas,
)
from sr3core.errors import ConfigError
from sr3core.hyperparameters import Clipping, NoiseScheduleConfig, SamplerAlgorithm, SamplerConfig, Start

if TYPE_CHECKING:
    from optuna import Trial
    from optuna.distributions import BaseDistribution

SHAPES = (1 / 3, 3.0)
NOISE_FIRST = (1e-6, 1e-3)
LARGEST_NOISE_FIRST = 0.5
LARGEST_LAST = 1e-2
LARGEST_SIGNAL = 0.95
"""Largest sqrt(gamma) that a chain from the input starts at: with less noise it could hardly change its input."""

Point = Mapping[str, float | int | str | bool]
"""A point of a space: parameter name -> value."""

Range = tuple[float, float, bool]
"""Lowest, highest, and whether it is log-uniform."""


class Space(Protocol):
    """What an algorithm searches."""

    @property
    def choices(self) -> dict[str, tuple[Any, ...]]:
        """The categorical parameters and their values."""
        ...

    @property
    def ranges(self) -> dict[str, Range]:
        """The numeric parameters and their ranges."""
        ...

    def ranges_of(self, choices: Point) -> dict[str, Range]:
        """The ranges that have an effect given these choices."""
        ...

    def schedule(self, point: Point) -> InferenceSchedule:
        """Decode a point; every one is valid."""
        ...


@dataclass(frozen=True, slots=True)
class SearchSpace:
    """Inference schedules for a network trained down to the noise level smallest_gamma.

    Parameters: family and shape of the curve; noise_first = 1 - gamma_1, log-uniform from 1e-6; gamma_last = gamma_N,
    log-uniform in [smallest_gamma, 1e-2]; the sampler; its randomness in [0, 1], where it has any (RANDOMNESS); how
    y_0_hat is clipped; what the chain starts from; and num_steps, the budget, if there are several. A chain from the
    input has signal_start = sqrt(gamma_N), uniform up to 0.95, in place of gamma_last.
    """

    steps: tuple[int, ...]
    """Budgets in network evaluations. A sampler with two per step has half as many steps."""
    smallest_gamma: float
    samplers: tuple[SamplerAlgorithm, ...] = get_args(SamplerAlgorithm)
    largest_noise_first: float = NOISE_FIRST[1]
    """Upper end of noise_first: 1e-3, or the respaced trained schedule's where that is larger, at few steps."""
    starts: tuple[Start, ...] = ("noise",)
    clips: tuple[Clipping, ...] = get_args(Clipping)
    """How y_0_hat may be clipped; fields are not."""

    def __post_init__(self) -> None:
        if not 0 < self.smallest_gamma < 1 - LARGEST_NOISE_FIRST:
            raise ConfigError(
                f"noise_schedule: it ends at gamma {self.smallest_gamma:.3g}; a schedule can be searched only below"
                f" {1 - LARGEST_NOISE_FIRST}: train with more steps or larger betas"
            )

    @classmethod
    def of(
        cls,
        training: NoiseScheduleConfig,
        steps: Sequence[int],
        samplers: Sequence[SamplerAlgorithm],
        starts: Sequence[Start] = ("noise",),
        bounded: bool = True,
    ) -> "SearchSpace":
        """The space for a network trained with this noise schedule."""
        smallest = float(training_gammas(training)[-1])
        respaced = 1 - default_schedule(training, min(steps)).gammas[1]
        largest = min(max(NOISE_FIRST[1], respaced), LARGEST_NOISE_FIRST)
        clips: tuple[Clipping, ...] = get_args(Clipping) if bounded else ("none",)
        return cls(tuple(steps), smallest, tuple(samplers), largest, tuple(starts), clips)

    @property
    def choices(self) -> dict[str, tuple[Any, ...]]:
        """The categorical parameters and their values."""
        found: dict[str, tuple[Any, ...]] = {
            "family": FAMILIES,
            "sampler": self.samplers,
        }
        several = {"clip": self.clips, "num_steps": self.steps, "start": self.starts}
        return found | {name: values for name, values in several.items() if len(values) > 1}

    @property
    def ranges(self) -> dict[str, Range]:
        """The numeric parameters and their ranges."""
        lasts: dict[Start, tuple[str, Range]] = {
            "noise": ("gamma_last", (self.smallest_gamma, max(LARGEST_LAST, self.smallest_gamma), True)),
            "input": ("signal_start", (float(np.sqrt(self.smallest_gamma)), LARGEST_SIGNAL, False)),
        }
        return {
            "shape": (*SHAPES, True),
            "noise_first": (NOISE_FIRST[0], self.largest_noise_first, True),
            **dict(lasts[start] for start in self.starts),
            "randomness": (0.0, 1.0, False),
        }

    def ranges_of(self, choices: Point) -> dict[str, Range]:
        """All but the randomness of a sampler that has none, and the last level of the other start."""
        useless = {"signal_start" if choices.get("start", self.starts[0]) == "noise" else "gamma_last"}
        useless |= set() if _knob(choices["sampler"]) else {"randomness"}
        return {name: ends for name, ends in self.ranges.items() if name not in useless}

    def schedule(self, point: Point) -> InferenceSchedule:
        """Decode a point, whose choices may be numbers in [0, 1]; numbers out of range are clamped."""
        values = decode(self, point)
        budget = values.get("num_steps", self.steps[0])
        start = values.get("start", self.starts[0])
        sampler = SamplerConfig(algorithm=values["sampler"], clip=values.get("clip", self.clips[0]), start=start)
        if knob := _knob(sampler.algorithm):
            sampler = replace(sampler, **{knob: values["randomness"]})
        last = values["gamma_last"] if start == "noise" else values["signal_start"] ** 2
        first = _first_level(values["noise_first"], last, start)
        steps = sampler.num_steps_within(budget)
        gammas = inference_gammas(values["family"], steps, first, last, values["shape"])
        suffix = f"-{budget}" if len(self.steps) > 1 else ""
        name = f"{values['family']}-{values['sampler']}-{fingerprint_of(values)[:6]}{suffix}"
        return make_schedule(gammas, sampler, name, self.smallest_gamma)

    def grid(self, count: int, seed: int) -> list[dict[str, Any]]:
        """The first `count` points of a grid in a seeded order: every choice, three shapes, two values of the rest."""
        middles = {
            name: [between(ends, share) for share in ((0.25, 0.5, 0.75) if name == "shape" else (0.2, 0.8))]
            for name, ends in self.ranges.items()
        }
        points = []
        for made in product(*self.choices.values()):
            choices = dict(zip(self.choices, made, strict=True))
            axes = {name: middles[name] for name in self.ranges_of(choices)}
            points += [choices | dict(zip(axes, values, strict=True)) for values in product(*axes.values())]
        order = np.random.Generator(np.random.Philox(seed)).permutation(len(points))
        return [points[index] for index in order[:count]]


def _first_level(noise_first: float, gamma_last: float, start: Start) -> float:
    """gamma_1. A chain from the input may start at so clean a level that gamma_1 must make room for it."""
    return 1 - noise_first if start == "noise" else max(1 - noise_first, (1 + gamma_last) / 2)


RANDOMNESS = {"ancestral": "variance", "ddim": "eta", "heun": "churn"}
"""Each sampler's setting of how much noise it adds, from 0 to 1; dpmpp_2m has none."""


def _knob(algorithm: Any) -> str | None:
    return RANDOMNESS.get(algorithm)


@dataclass(frozen=True, slots=True)
class RefinementSpace:
    """Schedules around a base with every step free: each step's width in log SNR is scaled by its own factor.

    Monotone for any point, since widths stay positive. For few steps only: it has one parameter per step.
    """

    base: InferenceSchedule
    smallest_gamma: float
    strength: float = 1.0
    """A width changes by at most a factor exp(strength), before all are scaled to fit between the ends."""

    @property
    def choices(self) -> dict[str, tuple[Any, ...]]:
        """The base's sampler and clipping stay."""
        return {}

    @property
    def ranges(self) -> dict[str, Range]:
        """Both ends, the sampler's randomness if it has any, and bend_1.. of the steps between them."""
        first, last = self.base.gammas[1], self.base.gammas[-1]
        ends: dict[str, Range] = {"gamma_last": (self.smallest_gamma, max(LARGEST_LAST, last), True)}
        if self.base.sampler.start == "input":
            ends["gamma_last"] = (max(self.smallest_gamma, last / 3), max(min(3 * last, LARGEST_SIGNAL**2), last), True)
        if _knob(self.base.sampler.algorithm):
            ends["randomness"] = (0.0, 1.0, False)
        if self.base.num_steps > 1:
            ends["noise_first"] = (
                NOISE_FIRST[0],
                min(max(NOISE_FIRST[1], 3 * (1 - first)), LARGEST_NOISE_FIRST),
                True,
            )
        return ends | {f"bend_{step}": (-1.0, 1.0, False) for step in range(1, self.base.num_steps)}

    def ranges_of(self, choices: Point) -> dict[str, Range]:
        """All of them: there is no choice."""
        return self.ranges

    @property
    def centre(self) -> dict[str, float]:
        """The base itself."""
        sampler = self.base.sampler
        point = {name: 0.0 for name in self.ranges}
        point["gamma_last"] = self.base.gammas[-1]
        if knob := _knob(sampler.algorithm):
            point["randomness"] = getattr(sampler, knob)
        if self.base.num_steps > 1:
            point["noise_first"] = 1 - self.base.gammas[1]
        return {name: float(np.clip(value, *self.ranges[name][:2])) for name, value in point.items()}

    def schedule(self, point: Point) -> InferenceSchedule:
        """Decode a point; numbers out of range are clamped."""
        values = decode(self, point)
        gammas = np.array(self.base.gammas)
        gammas[-1] = values["gamma_last"]
        if len(gammas) > 2:
            old = np.log1p(-np.array(self.base.gammas[1:])) - np.log(self.base.gammas[1:])  # -log SNR, rising
            bends = np.array([values[f"bend_{step}"] for step in range(1, len(old))])
            widths = np.diff(old) * np.exp(self.strength * bends)
            share = np.concatenate([[0.0], np.cumsum(widths)]) / widths.sum()
            first = _first_level(values["noise_first"], gammas[-1], self.base.sampler.start)
            start, stop = np.log((1 - first) / first), np.log((1 - gammas[-1]) / gammas[-1])
            levels = 1 / (1 + np.exp(start + (stop - start) * share))
            gammas[1:] = strictly_falling(levels, first, gammas[-1])
        knob = _knob(self.base.sampler.algorithm)
        sampler = replace(self.base.sampler, **{knob: values["randomness"]}) if knob else self.base.sampler
        return make_schedule(gammas, sampler, f"refined-{fingerprint_of(values)[:8]}", self.smallest_gamma)


def distributions(space: Space) -> "dict[str, BaseDistribution]":
    """A space for Optuna."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    found: dict[str, BaseDistribution] = {
        name: CategoricalDistribution(values) for name, values in space.choices.items()
    }
    found |= {name: FloatDistribution(low, high, log=log) for name, (low, high, log) in space.ranges.items()}
    return found


def propose(space: Space, trial: "Trial") -> None:
    """Ask an Optuna trial for a point: choices first, then the numbers that have an effect."""
    choices: dict[str, Any] = {name: trial.suggest_categorical(name, each) for name, each in space.choices.items()}
    for name, (low, high, log) in space.ranges_of(choices).items():
        trial.suggest_float(name, low, high, log=log)


def decode(space: Space, point: Point) -> dict[str, Any]:
    """A point's values, with choices resolved and numbers in range; parameters without effect are omitted.

    Raises:
        ConfigError: a choice is not one of the space's.
    """
    values = {name: _choose(name, point[name], values) for name, values in space.choices.items()}
    ranges = space.ranges_of(values)
    return values | {name: float(np.clip(float(point[name]), *ends[:2])) for name, ends in ranges.items()}


def _choose(name: str, value: float | int | str | bool, values: tuple[Any, ...]) -> Any:
    if isinstance(value, float):  # CMA-ES's numbers; no choice is one
        return values[min(int(np.clip(value, 0, 1) * len(values)), len(values) - 1)]
    if value not in values:
        raise ConfigError(f"{name}: {value!r} is not one of {', '.join(map(str, values))}")
    return value


def between(ends: Range, share: float) -> float:
    """The number at a share in [0, 1] of a range."""
    low, high, log = ends
    return float(low * (high / low) ** share) if log else float(low + (high - low) * share)


def share_of(ends: Range, value: float) -> float:
    """The share in [0, 1] of a range at which a number lies: the inverse of between."""
    low, high, log = ends
    if high == low:
        return 0.5
    share = np.log(value / low) / np.log(high / low) if log else (value - low) / (high - low)
    return float(np.clip(share, 0, 1))


def make_schedule(gammas: np.ndarray, sampler: SamplerConfig, name: str, smallest_gamma: float) -> InferenceSchedule:
    """Build a schedule after checking that the network was trained at all its levels.

    Raises:
        ConfigError: gammas are not a schedule, or end below smallest_gamma.
    """
    checked = check_gammas(gammas, smallest_gamma)
    return InferenceSchedule(gammas=tuple(float(gamma) for gamma in checked), sampler=sampler, name=name)
