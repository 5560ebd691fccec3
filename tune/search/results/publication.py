"""The schedules that a search publishes, where `sr3 upscale` looks for them."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipelines.runs.run_folder import StageRun, write_atomic
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
    """The best schedule, with provenance."""
    schedule_path: Path
    """RUN/<stage>/schedules/best-<budget>.json; with a front, front-<evaluations>.json of the best."""


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
