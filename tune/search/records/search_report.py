"""The files of a search in RUN/<stage>/search/<steps>-<fingerprint>/, and reading them back.

search.json     the result: every trial, the best, the confirmation (SearchReport)
trials/         one file per trial started or finished: a killed search resumes from them
../measured/    features and metrics, keyed by what they depend on, shared by all searches; may be deleted
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from pipelines.runs.run_folder import write_atomic
from pipelines.shards.manifest import MADE_BY
from pipelines.storage.versioned_json import JsonFormat
from sr3core import strict_json
from sr3core.config import from_dict, to_dict
from sr3core.diffusion.schedules import InferenceSchedule
from sr3core.errors import CheckpointError
from sr3core.hyperparameters import SamplerConfig
from tune.search.settings import SearchConfig

SEARCH_FORMAT_VERSION = 3
_FORMAT = JsonFormat(
    title="search",
    version=SEARCH_FORMAT_VERSION,
    name="sr3-search",
    if_damaged="delete it and search again",
    if_other_version="delete it and search again",
    error=CheckpointError,
)

Origin = Literal["default", "warm start", "search", "refinement"]
Status = Literal["done", "stopped", "failed"]
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialRecord:
    """One schedule and how it was judged."""

    name: str
    origin: Origin
    status: Status
    """done: judged on all images; stopped: on fewer, since others were better at its rung; failed: see error."""
    num_steps: int
    num_evaluations: int
    """Network evaluations per sample; more than num_steps if the sampler evaluates twice per step."""
    budget: int
    """Network evaluations that it was allowed: only trials of equal budgets compete."""
    gammas: tuple[float, ...]
    sampler: SamplerConfig
    num_images: int = 0
    """Images that the numbers below were measured on: only values at equal numbers compare."""
    objective: float | None = None
    """The value that the search minimises."""
    distance: float | None = None
    """Fréchet distance; SearchReport.label names the features."""
    standard_error: float | None = None
    """Jackknife standard error of distance over images."""
    objective_error: float | None = None
    """The same of objective; like kid_error, None in searches from before it was recorded."""
    kid: float | None = None
    kid_error: float | None = None
    psnr: float | None = None
    ssim: float | None = None
    consistency: float | None = None
    """In units of 1e-5."""
    seconds_per_image: float | None = None
    """Sampling time alone, on the search's hardware."""
    point: dict[str, Any] | None = None
    """Its point in the search space; None for schedules from elsewhere."""
    rung_objectives: tuple[float, ...] = ()
    """The objective at each rung that it reached."""
    error: str | None = None
    """Why it failed."""

    @property
    def schedule(self) -> InferenceSchedule:
        """The schedule that was judged."""
        return InferenceSchedule(gammas=self.gammas, sampler=self.sampler, name=self.name)


@dataclass(frozen=True, kw_only=True, slots=True)
class Gain:
    """By how much a winner is better than the best default of its budget, on the same images and noise."""

    name: str
    """The winner."""
    default: str
    """The default that has the lowest objective on these images."""
    value: float
    """The default's objective minus the winner's, the mean over num_seeds draws of noise."""
    low: float
    """Lower end of its interval over images and noise."""
    high: float
    level: float
    """Probability that the interval covers the expected gain."""
    num_seeds: int
    second_opinion: float | None = None
    """The same gain by KID, where FID decides."""

    @property
    def is_sure(self) -> bool:
        """Whether the whole interval lies above zero, and KID does not say the opposite."""
        return self.low > 0 and (self.second_opinion is None or self.second_opinion > 0)


def describe_gain(gain: Gain) -> str:
    """The gain and what it decides, as a sentence."""
    numbers = f"{gain.value:+.4g} [{gain.low:+.4g}, {gain.high:+.4g}] over the best default {gain.default}"
    noise = f"{gain.num_seeds} draws of noise" if gain.num_seeds > 1 else "one draw of noise"
    if gain.is_sure:
        return f"{gain.name} gains {numbers}, with {noise}: confirmed"
    why = "does not lie above 0" if gain.low <= 0 else f"is {gain.second_opinion:+.4g} by KID"
    return f"{gain.name} gains {numbers}, with {noise}, which {why}: refuted, {gain.default} is published"


@dataclass(frozen=True, kw_only=True, slots=True)
class Confirmation:
    """The winner and defaults on a second held-out split with fresh noise, since a search overfits its own split."""

    split: str
    num_images: int
    label: str
    """Name of the distance."""
    trials: tuple[TrialRecord, ...]
    """The winner first, then the default, then others; with the first noise."""
    gains: tuple[Gain, ...]
    """Of the winner, or of each of the front, over the best default; none of a winner that is itself a default."""

    def gain_of(self, name: str) -> Gain | None:
        """The gain of a winner; None if it is a default, or could not be judged."""
        return next((gain for gain in self.gains if gain.name == name), None)


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchReport:
    """The content of search.json."""

    stage: str
    num_steps: int
    label: str
    """Name of the distance: feature network and number of images."""
    is_fid: bool
    """Whether distance may be called FID."""
    feature_network: str
    split: str
    num_images: int
    front: tuple[str, ...]
    """Names of the trials that no equally cheap one beats, by rising cost; empty for a single budget."""
    best: str
    """Name of the trial with the lowest objective among those judged on all images."""
    published: tuple[str, ...]
    """Names of the schedules that are published, of the front in its order, or of best: itself where it is confirmed to
    be better than the best default, or nothing could refute it; else that default."""
    default: str
    """Name of the trial that would be used without a search."""
    trials: tuple[TrialRecord, ...]
    confirmation: Confirmation | None
    config: SearchConfig
    provenance: dict[str, Any]
    """Checkpoint, data, versions."""
    seconds: float
    """Wall-clock time of the search, without earlier attempts."""
    operator: str | None = MADE_BY
    """What made the inputs; None if it is not known, or no one operator did: consistency then says little."""
    format: Literal["sr3-search"] = "sr3-search"
    format_version: int = SEARCH_FORMAT_VERSION

    def trial(self, name: str) -> TrialRecord:
        """The trial of that name."""
        return next(trial for trial in self.trials if trial.name == name)

    def judged(self, name: str) -> TrialRecord:
        """The trial of that name, or what was only judged by the confirmation."""
        also = self.confirmation.trials if self.confirmation else ()
        return next(trial for trial in (*self.trials, *also) if trial.name == name)

    @property
    def failed(self) -> tuple[TrialRecord, ...]:
        """The trials that failed."""
        return tuple(trial for trial in self.trials if trial.status == "failed")


def read_search(path: Path) -> SearchReport:
    """Read a search.json.

    Raises:
        CheckpointError: it is missing, damaged or of another format version.
    """
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist: run `sr3 search` first")
    return from_dict(SearchReport, _FORMAT.read(path))


def find_searches(stage_path: Path) -> list[Path]:
    """Every finished search of a stage, the oldest first."""
    return sorted(stage_path.glob("search/*/search.json"), key=lambda path: path.stat().st_mtime)


def write_json(path: Path, data: Any) -> None:
    """Write a dataclass as JSON, atomically."""
    write_atomic(path, strict_json.dumps(to_dict(data), indent=1))


def best_of(trials: Sequence[TrialRecord]) -> TrialRecord | None:
    """The trial with the lowest objective among those judged on all images; None if there are none."""
    done = [trial for trial in trials if trial.status == "done" and trial.objective is not None]
    return min(done, key=lambda trial: trial.objective, default=None)  # type: ignore[arg-type]


def front_of(trials: Sequence[TrialRecord]) -> tuple[TrialRecord, ...]:
    """The trials judged on all images that no other of at most their evaluations beats, by rising cost."""
    found: list[TrialRecord] = []
    for cost in sorted({trial.num_evaluations for trial in trials}):
        best = best_of([trial for trial in trials if trial.num_evaluations == cost])
        if best is not None and (not found or (best.objective or 0.0) < (found[-1].objective or 0.0)):
            found.append(best)
    return tuple(found)
