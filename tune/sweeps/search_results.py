"""One report of many searches: a table, and a chart a stage of the distance against the cost."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipelines.storage.uris import join, write_atomic
from sr3core import strict_json
from sr3core.config import to_dict
from tune.search.records.search_report import SearchReport, TrialRecord
from tune.sweeps.pictures import draw
from tune.sweeps.searches import SearchOutcome

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FORMAT_VERSION = 1
COLUMNS = ("run", "stage", "steps", "published", "distance ± SE", "KID x1000", "best default", "gain", "confirmed")


def write_report(outcomes: Sequence[SearchOutcome], folder: str) -> None:
    """Write searches.json, table.md, and STAGE.svg with STAGE.png for each stage, into a folder or below a prefix."""
    content = [{"run": one.planned.run, **to_dict(one.planned.config), **_as_json(one)} for one in outcomes]
    whole = {"format": "sr3-searches", "format_version": FORMAT_VERSION, "searches": content}
    write_atomic(join(folder, "searches.json"), strict_json.dumps(whole, indent=1).encode())
    write_atomic(join(folder, "table.md"), format_table(outcomes).encode())
    for stage in dict.fromkeys(one.planned.config.stage for one in outcomes if one.report):
        same = [one for one in outcomes if one.planned.config.stage == stage]
        for suffix, picture in draw(lambda axes, same=same: plot_cost(axes, same)).items():
            write_atomic(join(folder, f"{stage}.{suffix}"), picture)


def _as_json(one: SearchOutcome) -> dict[str, object]:
    if one.report is None:
        return {"error": one.error}
    report = one.report
    gain = report.confirmation and report.confirmation.gain_of(report.best)
    published = published_of(report)
    return {
        "label": _label(report),
        "best": report.best,
        "published": published.name,
        "objective": published.objective,
        "distance": published.distance,
        "kid": published.kid,
        "gain": None if gain is None else to_dict(gain),
        "seconds": report.seconds,
    }


def published_of(report: SearchReport) -> TrialRecord:
    """What a search publishes for its largest budget, by the numbers of the confirmation where it was confirmed."""
    names = dict(zip(report.front or (report.best,), report.published, strict=True))
    name = names[report.best]
    sure = report.confirmation.trials if report.confirmation else ()
    return next((trial for trial in sure if trial.name == name), report.judged(name))


def _label(report: SearchReport) -> str:
    return report.confirmation.label if report.confirmation else report.label


def format_table(outcomes: Sequence[SearchOutcome]) -> str:
    """The searches as a Markdown table; numbers compare within a stage and a label."""
    labels = dict.fromkeys(_label(one.report) for one in outcomes if one.report)
    lines = ["# Schedule searches", "", *(f"Distance: {label}." for label in labels), ""]
    lines += ["| " + " | ".join(COLUMNS) + " |", "|" + " --- |" * len(COLUMNS)]
    lines += ["| " + " | ".join(_cells(one)) + " |" for one in outcomes]
    failed = [f"Failed: {one.planned.name}: {one.error}" for one in outcomes if one.error]
    return "\n".join([*lines, *(text for line in failed for text in ("", line))]) + "\n"


def _cells(one: SearchOutcome) -> list[str]:
    place = [one.planned.run, one.planned.config.stage, str(one.planned.config.num_steps)]
    if one.report is None:
        return [*place, "failed", *("" for _ in COLUMNS[4:])]
    published = published_of(one.report)
    gain = one.report.confirmation and one.report.confirmation.gain_of(one.report.best)
    error = "" if published.standard_error is None else f" ± {published.standard_error:.2g}"
    numbers = ["", "", "not confirmed" if one.report.confirmation is None else "a default is best"]
    if gain:
        spread = f"{gain.value:+.3g} [{gain.low:+.3g}, {gain.high:+.3g}]"
        numbers = [gain.default, spread, "yes" if gain.is_sure else "no"]
    return [
        *place,
        f"{published.name} ({published.sampler.algorithm})",
        "" if published.distance is None else f"{published.distance:.2f}{error}",
        "" if published.kid is None else f"{1000 * published.kid:.2f}",
        *numbers,
    ]


def plot_cost(axes: "Axes", outcomes: Sequence[SearchOutcome]) -> None:
    """The distance of what is published against its network evaluations, a line a run."""
    reports = [(one.planned.run, one.report) for one in outcomes if one.report]
    for run in dict.fromkeys(run for run, _ in reports):
        trials = [published_of(report) for name, report in reports if name == run]
        points = sorted((trial.num_evaluations, trial.distance or 0.0) for trial in trials)
        axes.plot(*zip(*points, strict=True), marker="o", label=run)
    ticks = sorted({published_of(report).num_evaluations for _, report in reports})
    axes.set_xscale("log")
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("network evaluations")
    axes.set_ylabel("FID" if all(report.is_fid for _, report in reports) else "distance")
    axes.set_title(f"{outcomes[0].planned.config.stage}: {_label(reports[0][1])}", loc="left", fontsize=9)
    axes.legend(frameon=False, fontsize=8)
