"""`sr3 study results`: fool rates with two-way intervals, pairwise tests, extreme images, the published trials."""

import csv
import io
import re
import statistics
import textwrap
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import sqlalchemy as sa

from pipelines.runs.run_folder import local_path, write_atomic
from pipelines.runtime.provenance import git_commit, versions
from pipelines.study.answers import answered_by, subject_rows
from pipelines.study.database import Database, open_existing, participants
from pipelines.study.exclusions import num_failed_checks, subject_exclusion, trial_exclusion
from pipelines.study.figures import write_figures
from pipelines.study.study_folder import RESULTS_FORMAT, Study, open_study
from sr3core import strict_json
from sr3core.config import to_dict
from sr3core.errors import ConfigError, DataError
from sr3core.metrics.fool_rate import NUM_REPLICATES, Answers, compare_models, rates_by, wilson_interval

NUM_EXTREMES = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialRow:
    """A trial as published: participants are numbered; their ids stay in the database."""

    task: int
    subject: str
    model: str
    viewing_seconds: float
    position: int
    kind: str
    image: str
    original_first: bool
    chose_first: bool
    fooled: bool
    """The model's output (or the spoilt copy) was preferred."""
    exposure_seconds: float
    response_seconds: float
    server_seconds: float
    focus_lost_viewing: int
    focus_lost_answering: int
    num_presentations: int
    excluded: str
    """Why it is excluded; empty if it counts."""


def write_results(
    studies: Sequence[str], databases: Sequence[str] = (), out: str | None = None, num_replicates: int = NUM_REPLICATES
) -> dict[str, Any]:
    """Compute and write the results of one study, or of one study of each task side by side.

    Args:
        studies: folders that `sr3 study new` wrote.
        databases: a database URL for each, if answers are not in STUDY/study.sqlite.
        out: folder for results.json, trials.csv, trials.json and figures/; default: the first study's.
        num_replicates: number of bootstrap replicates.

    Raises:
        DataError: there are no answers yet, or none is left after the declared exclusions.
        ConfigError: two studies are of the same task, or there are not as many databases as studies.
    """
    opened = [open_study(path) for path in studies]
    if databases and len(databases) != len(opened):
        raise ConfigError(
            f"database: {len(databases)} were given for {len(opened)} studies; give one for each, in the same order"
        )
    tasks = [study.config.task for study in opened]
    if len(set(tasks)) < len(tasks):
        raise ConfigError(f"studies: these are of tasks {tasks}; name at most one of each task")
    urls = list(databases) or [None] * len(opened)
    rows, found = [], []
    for study, url in sorted(zip(opened, urls, strict=True), key=lambda pair: pair[0].config.task):
        database = open_existing(url, study.sqlite_path, study.fingerprint)
        own, people = collect(study, database)
        database.close()
        rows += own
        found.append(summarize(study, own, people, num_replicates))
    results = {
        "format": RESULTS_FORMAT[0],
        "format_version": RESULTS_FORMAT[1],
        "tasks": found,
        "num_replicates": num_replicates,
        "provenance": {"versions": versions(), "git_commit": git_commit()},
    }
    folder = local_path(out) if out is not None else opened[0].path
    write_atomic(folder / "trials.csv", _as_csv(rows))
    write_atomic(folder / "trials.json", strict_json.dumps([asdict(row) for row in rows]))
    write_figures(results, opened, folder / "figures")
    write_atomic(folder / "results.json", strict_json.dumps(results, indent=1))  # last: it marks completion
    return results


def collect(study: Study, database: Database) -> tuple[list[TrialRow], Counter[str]]:
    """Every answer, marked if a declared rule excludes it, and the number of participants in each state."""
    rules, rows, people = study.config.exclusions, [], Counter[str]()
    with database.read() as connection:
        for person in connection.execute(sa.select(participants).order_by(participants.c.id)):
            people[person.state] += 1
            if person.slot is None:
                continue
            slot = study.plan.slots[person.slot]
            answered = answered_by(slot, subject_rows(connection, person.id))
            reason = subject_exclusion(rules, slot, answered)
            rows += [
                TrialRow(
                    task=study.config.task,
                    subject=f"{study.fingerprint[:4]}-{person.id:04d}",
                    model=slot.model,
                    viewing_seconds=slot.viewing_seconds,
                    kind=one.trial.kind,
                    image=one.trial.image,
                    original_first=one.trial.original_first,
                    fooled=not one.chose_original,
                    excluded=_reason(reason, trial_exclusion(rules, slot.viewing_seconds, one)),
                    **{name: getattr(one, name) for name in _MEASURED},
                )
                for one in answered
            ]
            people[f"excluded: {_kind(reason)}"] += bool(reason) and person.state == "done"
            people["failed checks"] += num_failed_checks(answered)
    return rows, people


_MEASURED = (
    "position",
    "chose_first",
    "exposure_seconds",
    "response_seconds",
    "server_seconds",
    "focus_lost_viewing",
    "focus_lost_answering",
    "num_presentations",
)


def _reason(subject: str | None, trial: str | None) -> str:
    return f"subject: {subject}" if subject else f"trial: {trial}" if trial else ""


def _kind(reason: str | None) -> str:
    """A reason without its numbers, so that equal reasons are counted together."""
    return re.sub(r" in \d.*|\d+ ", "", reason or "")


def summarize(study: Study, rows: Iterable[TrialRow], people: Counter[str], num_replicates: int) -> dict[str, Any]:
    """The results of one task.

    Raises:
        DataError: no trial of some model is left after the declared exclusions.
    """
    asked = [row for row in rows if row.kind == "trial"]
    kept = [row for row in asked if not row.excluded]
    empty = [model for model in study.plan.models if not any(row.model == model for row in kept)]
    if empty:
        raise DataError(
            f"{study.path}: no valid trial of {', '.join(empty)} yet ({len(asked)} answered, {len(kept)} kept);"
            " subjects count once they have finished"
        )
    seed = study.config.seed
    by_model = {model: [row for row in kept if row.model == model] for model in study.plan.models}
    rates, differences = compare_models({m: _answers(r) for m, r in by_model.items()}, seed, num_replicates)
    by_time = {
        (model, seconds): [row for row in own if row.viewing_seconds == seconds]
        for model, own in by_model.items()
        for seconds in study.config.viewing_seconds
    }
    timed = compare_models({f"{m}/{s}": _answers(r) for (m, s), r in by_time.items() if r}, seed, num_replicates)[0]
    reasons = Counter(row.excluded.split(": ", 1)[1] for row in asked if row.excluded.startswith("trial"))
    return {
        "task": study.config.task,
        "title": study.config.title,
        "question": study.config.question,
        "study": study.fingerprint,
        "exclusions": to_dict(study.config.exclusions),
        "people": {name: count for name, count in people.items() if count},
        "num_answers": len(asked),
        "num_kept": len(kept),
        "dropped_trials": dict(reasons),
        "models": [{"model": model, **asdict(rate)} for model, rate in rates.items()],
        "differences": [asdict(pair) for pair in differences],
        "by_viewing_time": [
            {"model": model, "viewing_seconds": seconds, **asdict(timed[f"{model}/{seconds}"])}
            for model, seconds in by_time
            if f"{model}/{seconds}" in timed
        ],
        "subjects": _each(by_model, lambda row: row.subject, "subject"),
        "images": _each(by_model, lambda row: row.image, "image"),
        "extremes": {model: _extremes(own) for model, own in by_model.items()},
    }


def _answers(rows: Sequence[TrialRow]) -> Answers:
    return Answers([r.subject for r in rows], [r.image for r in rows], [r.fooled for r in rows])


def _each(by_model: dict[str, list[TrialRow]], name_of: Callable[[TrialRow], str], key: str) -> list[dict[str, Any]]:
    """Fool rate of every image (or subject) of every model; within one, trials are independent: Wilson's interval."""
    lines = []
    for model, rows in by_model.items():
        for name, (rate, count) in rates_by([name_of(r) for r in rows], [r.fooled for r in rows]).items():
            low, high = wilson_interval(rate * count, count)
            lines.append({"model": model, key: name, "rate": rate, "num_trials": count, "low": low, "high": high})
    return lines


def _extremes(rows: Sequence[TrialRow]) -> dict[str, list[dict[str, Any]]]:
    """Figures D.1 and D.2: the images with the lowest and with the highest fool rates.

    They are below, and above, the mean of the images' rates: where all images have one rate, none is extreme.
    """
    rates = rates_by([row.image for row in rows], [row.fooled for row in rows])
    mean = statistics.fmean(rate for rate, _ in rates.values())

    def lines(sign: int) -> list[dict[str, Any]]:
        beyond = [(sign * rate, -count, name) for name, (rate, count) in rates.items() if sign * (rate - mean) < 0]
        return [
            {"image": name, "rate": rates[name][0], "num_trials": rates[name][1]}
            for _, _, name in sorted(beyond)[:NUM_EXTREMES]
        ]

    return {"lowest": lines(1), "highest": lines(-1)}


def _as_csv(rows: Sequence[TrialRow]) -> str:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, [column.name for column in fields(TrialRow)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)
    return buffer.getvalue()


def tabulate(results: dict[str, Any]) -> str:
    """The fool rates as a plain table."""
    lines = []
    for task in results["tasks"]:
        lines += textwrap.wrap(f"Task {task['task']}: {task['question']}", 80, subsequent_indent="  ")
        lines.append(f"{'':<20}{'fool rate':>10}{'95% interval':>18}{'subjects':>10}{'images':>8}{'trials':>8}")
        for row in task["models"]:
            interval = f"{row['low']:.1%} to {row['high']:.1%}"
            counts = f"{row['num_subjects']:>10}{row['num_images']:>8}{row['num_trials']:>8}"
            lines.append(f"{row['model']:<20}{row['rate']:>10.1%}{interval:>18}{counts}")
        for pair in task["differences"]:
            lines.append(
                f"  {pair['first']} minus {pair['second']}: {pair['difference']:+.1%}"
                f" ({pair['low']:+.1%} to {pair['high']:+.1%}), p = {pair['p_adjusted']:.2g} (Holm)"
            )
        lines.append(f"  kept {task['num_kept']} of {task['num_answers']} answers")
    return "\n".join(lines)
