"""The files of a search in RUN/<stage>/search/<steps>-<fingerprint>/, and reading them back.

search.json     the result: every trial, the best, the confirmation (SearchReport)
trials/         one file per trial started or finished: a killed search resumes from them
../measured/    features and metrics, keyed by what they depend on, shared by all searches; may be deleted
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from pipelines.runs.run_folder import StageRun, write_atomic
from pipelines.storage.versioned_json import JsonFormat, decoding
from sr3core import strict_json
from sr3core.config import differences, from_dict, to_dict
from sr3core.diffusion.schedules import InferenceSchedule, schedule_from_json
from sr3core.errors import CheckpointError, ConfigError
from sr3core.hyperparameters import SamplerConfig
from tune.search.settings import SearchConfig

SEARCH_FORMAT_VERSION = 2
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
class Confirmation:
    """The winner and defaults on a second held-out split with fresh noise, since a search overfits its own split."""

    split: str
    num_images: int
    label: str
    """Name of the distance."""
    trials: tuple[TrialRecord, ...]
    """The winner first, then the default, then others."""
    winner_is_better: bool | None
    """Whether the winner's objective is below that of every other schedule of its budget; None if there is none."""

    def stays_ahead(self, name: str) -> bool | None:
        """Whether a schedule of the front beats all others that cost no more; None if there are none."""
        here = next((trial for trial in self.trials if trial.name == name), None)
        if here is None or here.objective is None:
            return None
        rivals = [trial for trial in self.trials if trial.num_evaluations <= here.num_evaluations and trial != here]
        values = [trial.objective for trial in rivals if trial.objective is not None]
        return here.objective < min(values) if values else None


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
    default: str
    """Name of the trial that would be used without a search."""
    trials: tuple[TrialRecord, ...]
    confirmation: Confirmation | None
    config: SearchConfig
    provenance: dict[str, Any]
    """Checkpoint, data, versions."""
    seconds: float
    """Wall-clock time of the search, without earlier attempts."""
    format: Literal["sr3-search"] = "sr3-search"
    format_version: int = SEARCH_FORMAT_VERSION

    def trial(self, name: str) -> TrialRecord:
        """The trial of that name."""
        return next(trial for trial in self.trials if trial.name == name)

    @property
    def failed(self) -> tuple[TrialRecord, ...]:
        """The trials that failed."""
        return tuple(trial for trial in self.trials if trial.status == "failed")


@dataclass(frozen=True, slots=True)
class SearchResult:
    """A finished search and its files."""

    report: SearchReport
    path: Path
    """search.json."""
    schedule: InferenceSchedule
    """The best schedule, with provenance."""
    schedule_path: Path
    """RUN/<stage>/schedules/best-<budget>.json; with a front, front-<evaluations>.json of the best."""


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


@dataclass(frozen=True, slots=True)
class Proposal:
    """A schedule to try."""

    schedule: InferenceSchedule
    origin: Origin
    point: dict[str, Any] | None = None


@dataclass(slots=True)
class Ledger:
    """The trials of one search on disk: which were started, which finished. Only one driver writes it.

    Raises:
        ConfigError: the folder holds the trials of another search.
    """

    folder: Path
    identity: dict[str, Any]
    """Everything that decides which schedules are tried and how they are judged; stored in identity.json."""
    finished: list[TrialRecord] = field(default_factory=list)
    interrupted: list[Proposal] = field(default_factory=list)

    def __post_init__(self) -> None:
        marker = self.folder / "identity.json"
        identity = strict_json.plain({**self.identity, "format_version": SEARCH_FORMAT_VERSION})
        remedy = "delete the folder it is in, or use another name"
        with decoding(marker, "record of a search", remedy):
            changed = differences(dict(strict_json.loads(marker.read_bytes())), identity) if marker.is_file() else []
        if changed:
            raise ConfigError(
                f"{self.folder} holds a search with a different space or model: {'; '.join(changed)}; delete it or use"
                " another name"
            )
        write_atomic(marker, strict_json.dumps(identity, indent=1))
        with decoding(self.folder / "trials", "record of trials", remedy):
            entries = [strict_json.loads(path.read_bytes()) for path in self.folder.glob("trials/*.json")]
            for data in sorted(entries, key=lambda entry: entry["index"]):
                self._take(data)

    def _take(self, data: dict[str, Any]) -> None:
        if data["ended"] is not None:
            self.finished.append(from_dict(TrialRecord, data["ended"]))
        else:
            begun = data["begun"]
            schedule = from_dict(InferenceSchedule, begun["schedule"])
            self.interrupted.append(Proposal(schedule, begun["origin"], begun["point"]))

    def begin(self, proposal: Proposal) -> None:
        """Record that a trial starts."""
        self._write(proposal.schedule.name, {"index": len(self.finished), "begun": to_dict(proposal), "ended": None})

    def end(self, record: TrialRecord) -> None:
        """Record how a trial ended."""
        self._write(record.name, {"index": len(self.finished), "begun": None, "ended": to_dict(record)})
        self.finished.append(record)

    def _write(self, name: str, content: dict[str, Any]) -> None:
        write_atomic(self.folder / "trials" / f"{name}.json", strict_json.dumps(content, indent=1))


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


def publish_schedules(stage: StageRun, report: SearchReport, folder: Path) -> SearchResult:
    """Write the best schedules where `sr3 upscale` looks for them; delete those that left this search's front."""
    for path in stage.schedules.glob("front-*.json"):
        if _search_of(path) == folder.name:
            path.unlink()
    written = {}
    for name in report.front or (report.best,):
        trial = report.trial(name)
        schedule = replace(trial.schedule, provenance=_schedule_provenance(report, trial, folder.name))
        stem = f"front-{trial.num_evaluations}" if report.front else f"best-{trial.budget}"
        path = stage.schedules / f"{stem}.json"
        write_atomic(path, schedule.to_json())
        written[name] = (schedule, path)
    schedule, path = written[report.best]
    return SearchResult(report=report, path=folder / "search.json", schedule=schedule, schedule_path=path)


def _search_of(path: Path) -> str | None:
    """The search that wrote a schedule; None for files of other origin."""
    try:
        return schedule_from_json(path.read_bytes(), path.name).provenance.get("search")
    except CheckpointError:
        return None


def _schedule_provenance(report: SearchReport, trial: TrialRecord, search_name: str) -> dict[str, Any]:
    sure = report.confirmation
    verdict = sure and (sure.winner_is_better if trial.name == report.best else sure.stays_ahead(trial.name))
    return {
        "made_by": "schedule search",
        "search": search_name,
        "stage": report.stage,
        "label": report.label,
        "distance": trial.distance,
        "objective": report.config.objective,
        "split": report.split,
        "num_images": report.num_images,
        "seed": report.config.seed,
        "feature_network": report.feature_network,
        "confirmed": verdict,
        **report.provenance,
    }
