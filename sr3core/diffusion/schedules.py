"""Noise schedules: Equations (1)-(3)'s alpha and gamma, p(gamma) of section 2.4, and inference schedules.

A schedule of N steps consists of the noise levels gammas[0..N], float64, with gammas[0] == 1 (no noise), strictly
falling. Index t is the paper's t, so alpha_t = gammas[t] / gammas[t - 1].
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, cast, get_args

import numpy as np

from sr3core import strict_json
from sr3core.config import did_you_mean, from_dict
from sr3core.errors import CheckpointError, ConfigError
from sr3core.hyperparameters import GammaUniformIn, ModelConfig, NoiseScheduleConfig, SamplerConfig

InferenceFamily = Literal["linear", "quadratic", "geometric", "cosine", "sigmoid", "karras"]
FAMILIES: tuple[InferenceFamily, ...] = get_args(InferenceFamily)

SCHEDULE_FORMAT_VERSION = 2
"""Version 1, which can still be read, had SamplerConfig.clip as true or false."""


def check_gammas(gammas: np.ndarray, smallest_trained: float = 0.0) -> np.ndarray:
    """Check that gammas are a schedule, and return them as float64 (N + 1,).

    Raises:
        ConfigError: they do not start at 1, do not fall strictly, leave (0, 1], or end below smallest_trained.
    """
    gammas = np.asarray(gammas, dtype=np.float64)
    if gammas.ndim != 1 or len(gammas) < 2 or gammas[0] != 1:
        raise ConfigError("a schedule needs gammas[0] == 1 and at least one step")
    if not np.all(np.diff(gammas) < 0):
        raise ConfigError(f"gammas must fall strictly; they rise after t = {int(np.argmax(np.diff(gammas) >= 0))}")
    if gammas[-1] <= 0:
        raise ConfigError(f"gammas must stay in (0, 1]; the last is {gammas[-1]}")
    if gammas[-1] < smallest_trained * (1 - 1e-9):
        raise ConfigError(
            f"gammas end at {gammas[-1]:.3g}, below the smallest noise level trained, {smallest_trained:.3g};"
            " the network never saw such inputs: end the schedule at or above it"
        )
    return gammas


def cumulative_gammas(alphas: np.ndarray) -> np.ndarray:
    """gamma_t = prod_{i <= t} alpha_i, below Equation (3): alphas (N,) in (0, 1) -> gammas (N + 1,)."""
    return np.concatenate([[1.0], np.cumprod(np.asarray(alphas, dtype=np.float64))])


def training_gammas(config: NoiseScheduleConfig) -> np.ndarray:
    """The training schedule of section 2.4: (T + 1,) float64."""
    if config.family == "linear":
        return cumulative_gammas(1 - np.linspace(config.beta_first, config.beta_last, config.num_steps))
    # Nichol and Dhariwal (2021), Equation 17: beta is capped so that the last alphas stay above zero.
    t = np.arange(config.num_steps + 1) / config.num_steps
    f = np.cos((t + 0.008) / 1.008 * np.pi / 2) ** 2
    return cumulative_gammas(1 - np.clip(1 - f[1:] / f[:-1], None, 0.999))


def sample_gamma(
    gammas: np.ndarray, u_step: np.ndarray, u_within: np.ndarray, uniform_in: GammaUniformIn = "gamma"
) -> np.ndarray:
    """Draw noise levels from p(gamma) = sum_t 1/T U(gamma_{t-1}, gamma_t), section 2.4.

    Args:
        gammas: the training schedule, (T + 1,).
        u_step: uniform draws in [0, 1) that choose t in {1..T}, (B,). Deviation: the paper writes t ~ {0..T}, but its
            sum has T terms and gamma_{-1} does not exist.
        u_within: uniform draws in [0, 1) that choose gamma inside the step, (B,).
        uniform_in: within a step, "gamma": gamma is uniform (the paper's formula); "sqrt_gamma": sqrt(gamma) is uniform
            (WaveGrad's code); "steps": gamma is the step's own gamma_t (DDPM's choice; u_within is not used).

    Returns:
        gamma, (B,) float64 in [gamma_T, 1].
    """
    t = 1 + np.floor(np.asarray(u_step) * (len(gammas) - 1)).astype(np.int64)
    if uniform_in == "steps":
        return gammas[t]
    levels = np.sqrt(gammas) if uniform_in == "sqrt_gamma" else gammas
    chosen = levels[t] + np.asarray(u_within) * (levels[t - 1] - levels[t])
    return chosen**2 if uniform_in == "sqrt_gamma" else chosen


def step_of(gammas: np.ndarray, gamma: np.ndarray) -> np.ndarray:
    """The step t whose interval [gamma_t, gamma_{t-1}) contains a noise level.

    Args:
        gammas: a schedule, (T + 1,).
        gamma: noise levels in [gamma_T, 1], (B,) float64; gamma_t itself belongs to t.

    Returns:
        t, (B,) int64 in 1..T.
    """
    return np.clip(np.searchsorted(-gammas, -np.asarray(gamma)), 1, len(gammas) - 1)


def respace(gammas: np.ndarray, num_steps: int) -> np.ndarray:
    """Keep num_steps + 1 evenly spaced entries of a schedule, including the first and the last.

    Raises:
        ConfigError: num_steps is not in 1..N for a schedule of N steps.
    """
    if not 1 <= num_steps <= len(gammas) - 1:
        raise ConfigError(f"num_steps: {num_steps} is not in 1..{len(gammas) - 1}, the steps of the trained schedule")
    return gammas[np.round(np.linspace(0, len(gammas) - 1, num_steps + 1)).astype(int)]


def inference_gammas(
    family: InferenceFamily, num_steps: int, gamma_first: float, gamma_last: float, shape: float = 1.0
) -> np.ndarray:
    """An inference schedule with given end points; it is valid for all arguments in range.

    Args:
        family: the curve between the end points. linear, quadratic and geometric are curves of beta_t = 1 - alpha_t,
            raised to the power shape; cosine and sigmoid of gamma over t, where shape bends t; karras of
            sigma = sqrt((1 - gamma) / gamma) with rho = 7 shape.
        num_steps: N >= 1.
        gamma_first: gammas[1], the level of the last denoising step, in (gamma_last, 1); not used if N = 1.
        gamma_last: gammas[N], where the chain starts, in (0, 1).
        shape: bends the curve, > 0; 1 gives the unmodified family.

    Returns:
        gammas (N + 1,) float64.

    Raises:
        ConfigError: an argument is out of range.
    """
    if family not in FAMILIES:
        raise ConfigError(f"unknown family {family!r}, {did_you_mean(family, FAMILIES)}")
    if num_steps < 1 or shape <= 0 or not 0 < gamma_last < gamma_first < 1:
        raise ConfigError(
            f"num_steps {num_steps} >= 1, shape {shape} > 0, 0 < gamma_last {gamma_last:.3g} < gamma_first"
            f" {gamma_first:.3g} < 1 must hold"
        )
    if num_steps == 1:
        return np.array([1.0, gamma_last])
    u = np.linspace(0, 1, num_steps)
    inner = _CURVES[family](u, gamma_first, gamma_last, shape)
    return check_gammas(np.concatenate([[1.0], strictly_falling(inner, gamma_first, gamma_last)]))


def strictly_falling(levels: np.ndarray, gamma_first: float, gamma_last: float) -> np.ndarray:
    """Set a curve's end points exactly; if rounding made neighbours of a steep curve equal, spread them slightly.

    Args:
        levels: gammas[1..N] of a curve that never rises, (N,), N >= 2.
        gamma_first: gammas[1].
        gamma_last: gammas[N].

    Returns:
        (N,) float64, falling strictly; the argument itself unless it had to be spread.
    """
    levels[0], levels[-1] = gamma_first, gamma_last
    if np.all(np.diff(levels) < 0):
        return levels
    even = np.geomspace(gamma_first, gamma_last, len(levels))
    spread = levels ** (1 - 1e-6) * even**1e-6
    spread[0], spread[-1] = gamma_first, gamma_last
    return spread


def _beta_curve(growth: Callable[[np.ndarray], np.ndarray]) -> Callable[..., np.ndarray]:
    """A curve where -log alpha_t (beta_t to first order) is proportional to growth(u) ** shape after the first step."""

    def curve(u: np.ndarray, gamma_first: float, gamma_last: float, shape: float) -> np.ndarray:
        first, total = -np.log(gamma_first), -np.log(gamma_last)
        share = np.cumsum(growth(u) ** shape)  # growth rises from growth(0) = 0, so share rises strictly from 0
        return np.exp(-(first + (total - first) * share / share[-1]))

    return curve


def _geometric(u: np.ndarray, gamma_first: float, gamma_last: float, shape: float) -> np.ndarray:
    """-log alpha_t grows by a constant ratio per step; bisection finds the ratio that ends at gamma_N."""
    first, total = -np.log(gamma_first), -np.log(gamma_last)
    exponent = np.arange(len(u)) ** shape

    def excess(log_ratio: float) -> float:
        return float(first * np.sum(np.exp(log_ratio * exponent)) - total)

    low, high = -60.0, 60.0 / max(exponent[-1], 1)
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if excess(middle) < 0 else (low, middle)
    return np.exp(-np.cumsum(first * np.exp(low * exponent)))


def _truncated(
    level: Callable[[np.ndarray], np.ndarray], inverse: Callable[[float], float]
) -> Callable[..., np.ndarray]:
    """The part of the curve gamma = level(s) between the end points, with s linear in u ** shape."""

    def curve(u: np.ndarray, gamma_first: float, gamma_last: float, shape: float) -> np.ndarray:
        start, stop = inverse(gamma_first), inverse(gamma_last)
        return level(start + (stop - start) * u**shape)

    return curve


def _karras(u: np.ndarray, gamma_first: float, gamma_last: float, shape: float) -> np.ndarray:
    rho = 7.0 * shape
    first, last = (np.sqrt((1 - gamma) / gamma) for gamma in (gamma_first, gamma_last))
    sigma = (first ** (1 / rho) + u * (last ** (1 / rho) - first ** (1 / rho))) ** rho
    return 1 / (1 + sigma**2)


_CURVES: dict[str, Callable[..., np.ndarray]] = {
    "linear": _beta_curve(lambda u: u),
    "quadratic": _beta_curve(lambda u: u**2),
    "geometric": _geometric,
    "cosine": _truncated(lambda s: np.cos(s) ** 2, lambda gamma: float(np.arccos(np.sqrt(gamma)))),
    "sigmoid": _truncated(lambda s: 1 / (1 + np.exp(s)), lambda gamma: float(np.log((1 - gamma) / gamma))),
    "karras": _karras,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class InferenceSchedule:
    """Everything a sampler needs besides the network: noise levels and sampler settings. Stored as a separate file."""

    gammas: tuple[float, ...]
    """gammas[0] = 1 .. gammas[N]."""
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    """The sampler that runs the chain on these levels."""
    name: str = "unnamed"
    """Display name."""
    format_version: int = SCHEDULE_FORMAT_VERSION
    """Version of this file format."""
    provenance: dict[str, Any] = field(default_factory=dict[str, Any])
    """Origin: checkpoint, data, search."""

    def __post_init__(self) -> None:
        check_gammas(np.array(self.gammas))

    @property
    def num_steps(self) -> int:
        """N, the number of denoising steps."""
        return len(self.gammas) - 1

    @property
    def num_evaluations(self) -> int:
        """Network evaluations per sample."""
        return self.sampler.num_evaluations(self.num_steps)

    def to_json(self) -> str:
        """Serialise to JSON without loss: floats keep all their digits."""
        return strict_json.dumps(asdict(self), indent=1)


def schedule_from_json(text: str | bytes, origin: str) -> InferenceSchedule:
    """Parse the output of InferenceSchedule.to_json.

    Raises:
        CheckpointError: it is not a schedule file or has an unsupported format version; origin names the file.
        ConfigError: gammas do not fall strictly within (0, 1], or another value is invalid.
    """
    try:
        content: Any = strict_json.loads(text)
    except ValueError as error:
        raise CheckpointError(f"{origin} is not a schedule file: {error}; name one that `sr3 search` wrote") from error
    data = cast("dict[str, Any]", content) if isinstance(content, dict) else {}
    version = data.get("format_version")
    if version == 1 and isinstance(data.get("sampler"), dict):
        clip = "static" if data["sampler"].get("clip", True) else "none"
        data = {**data, "sampler": {**data["sampler"], "clip": clip}, "format_version": SCHEDULE_FORMAT_VERSION}
    elif version != SCHEDULE_FORMAT_VERSION:
        raise CheckpointError(
            f"{origin} has schedule format version {version!r}, this program reads {SCHEDULE_FORMAT_VERSION};"
            " name one that `sr3 search` wrote"
        )
    try:
        return from_dict(InferenceSchedule, data)
    except ConfigError as error:
        raise ConfigError(f"{origin}: {error}") from error


def default_sampler(model: ModelConfig) -> SamplerConfig:
    """The sampler of a schedule that nobody chose: Algorithm 2's, which clips images and leaves fields as they are."""
    return SamplerConfig(clip="static" if model.bounded else "none")


def default_schedule(
    config: NoiseScheduleConfig, num_steps: int, sampler: SamplerConfig | None = None
) -> InferenceSchedule:
    """The training schedule respaced to num_steps, the default without a search.

    Raises:
        ConfigError: num_steps exceeds T, the number of trained levels; inference_gammas() can create more.
    """
    gammas = respace(training_gammas(config), num_steps)
    return InferenceSchedule(
        gammas=tuple(float(gamma) for gamma in gammas), sampler=sampler or SamplerConfig(), name=f"respaced-{num_steps}"
    )
