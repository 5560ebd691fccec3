"""A search's results as a Markdown table: every schedule judged on all images, the best first."""

from collections.abc import Sequence

from tune.search.proposals.space import RANDOMNESS
from tune.search.records.search_report import Confirmation, SearchReport, TrialRecord, describe_gain

_COLUMNS = (
    "schedule",
    "steps",
    "sampler",
    "objective ± SE",
    "distance ± SE",
    "KID x1000 ± SE",
    "PSNR",
    "SSIM",
    "consistency",
    "s/image",
)

UNKNOWN_OPERATOR = (
    "Consistency is that of bicubic shrinking here, and no one operator that is known made these inputs: an image that"
    " fits its input perfectly has an error, too."
)


def format_table(report: SearchReport) -> str:
    """Format the trials, the confirmation, and what stopped or failed.

    Standard errors are jackknife estimates over images; those of two rows share images, and their difference has a
    smaller one. Distances compare only within one table.
    """
    done = sorted((t for t in report.trials if t.status == "done"), key=lambda trial: trial.objective or 0.0)
    stopped = [trial for trial in report.trials if trial.status == "stopped"]
    lines = [
        f"# Schedule search of stage {report.stage}, at most {report.num_steps} evaluations",
        "",
        f"Distance: {report.label}, on the {report.split} split. Best: **{report.best}**; the default without a"
        f" search is {report.default}. {len(report.trials)} trials: {len(done)} judged on all images,"
        f" {len(stopped)} stopped at a rung, {len(report.failed)} failed.",
        "",
        *_rows(done, {report.best, *report.front}),
    ]
    if report.operator is None:
        lines += ["", UNKNOWN_OPERATOR]
    if report.confirmation:
        found = report.confirmation
        title = f"## Confirmed on the {found.split} split with fresh noise"
        lines += ["", title, "", f"Distance: {found.label}.", ""]
        lines += [line for name in report.front or (report.best,) for line in (_confirmed(report, found, name), "")]
        ranked = sorted(found.trials, key=lambda trial: (trial.num_evaluations, trial.objective or float("inf")))
        lines += _rows(ranked, {report.best, *report.front})
    early = [f"{trial.name} at {trial.num_images}" for trial in stopped if trial.origin == "default"]
    if early:
        lines += ["", f"Defaults that were stopped at a rung, with its number of images: {', '.join(early)}."]
    for trial in report.failed:
        lines += ["", f"Failed: {trial.name}: {trial.error}"]
    return "\n".join(lines) + "\n"


def _confirmed(report: SearchReport, found: Confirmation, name: str) -> str:
    gain = found.gain_of(name)
    if gain is not None:
        return f"- {describe_gain(gain)}."
    published = dict(zip(report.front or (report.best,), report.published, strict=True))[name]
    return f"- {name} is a default, or could not be judged; {published} is published."


def _rows(trials: Sequence[TrialRecord], bold: set[str]) -> list[str]:
    head = ["| " + " | ".join(_COLUMNS) + " |", "|" + " --- |" * len(_COLUMNS)]
    return head + ["| " + " | ".join(_cells(trial, trial.name in bold)) + " |" for trial in trials]


def _cells(trial: TrialRecord, bold: bool) -> list[str]:
    sampler = trial.sampler
    name = RANDOMNESS.get(sampler.algorithm)
    knob = [f"{name} {getattr(sampler, name):.2f}"] if name else []
    clipped = {"none": "not clipped", "static": "clipped", "dynamic": "clipped dynamically"}[sampler.clip]
    twice = f" ({trial.num_evaluations} evaluations)" if trial.num_evaluations != trial.num_steps else ""
    nothing = "failed" if trial.status == "failed" else "–"

    def number(value: float | None, form: str, error: float | None = None, scale: float = 1) -> str:
        if value is None:
            return nothing
        return format(scale * value, form) + ("" if error is None else f" ± {scale * error:.2g}")

    return [
        f"**{trial.name}**" if bold else trial.name,
        f"{trial.num_steps}{twice}",
        ", ".join([sampler.algorithm, *knob, clipped, *_start(trial)]),
        number(trial.objective, ".4g", trial.objective_error),
        number(trial.distance, ".2f" if trial.kid is not None else ".4g", trial.standard_error),
        number(trial.kid, ".2f", trial.kid_error, 1000),
        number(trial.psnr, ".2f"),
        number(trial.ssim, ".3f"),
        number(trial.consistency, ".1f"),
        number(trial.seconds_per_image, ".3f"),
    ]


def _start(trial: TrialRecord) -> list[str]:
    return [f"from the input at gamma {trial.gammas[-1]:.2g}"] if trial.sampler.start == "input" else []
