"""The schedules that a search publishes, where `sr3 upscale` looks for them."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipelines.runs.run_folder import StageRun, write_atomic
from sr3core.config import to_dict
from sr3core.diffusion.schedules import InferenceSchedule, schedule_from_json
from sr3core.errors import CheckpointError
from tune.search.records.search_report import SearchReport, TrialRecord


@dataclass(frozen=True, slots=True)
class SearchResult:
    """A finished search and its files."""

    report: SearchReport
    path: Path
    """search.json."""
    schedule: InferenceSchedule
    """The schedule that is published: the best if it is confirmed, else a default; with provenance."""
    schedule_path: Path
    """RUN/<stage>/schedules/best-<budget>.json; with a front, front-<evaluations>.json of the best."""


def publish_schedules(stage: StageRun, report: SearchReport, folder: Path) -> SearchResult:
    """Write what is published where `sr3 upscale` looks for it; delete what left this search's front."""
    for path in stage.schedules.glob("front-*.json"):
        if _search_of(path) == folder.name:
            path.unlink()
    written = {}
    pairs = zip(report.front or (report.best,), report.published, strict=True)
    for name, published in sorted(pairs, key=lambda pair: pair[0] == pair[1]):  # a default never replaces what is sure
        trial = report.judged(published)
        schedule = replace(trial.schedule, provenance=_schedule_provenance(report, name, trial, folder.name))
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


def _schedule_provenance(report: SearchReport, winner: str, trial: TrialRecord, search_name: str) -> dict[str, Any]:
    gain = report.confirmation and report.confirmation.gain_of(winner)
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
        "confirmed": None if gain is None else gain.is_sure,
        "instead_of": winner if winner != trial.name else None,
        "gain": None if gain is None else to_dict(gain),
        **report.provenance,
    }
