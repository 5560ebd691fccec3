"""`sr3 report`: runs as one self-contained HTML file that opens without a network.

This module gathers the numbers and pictures; the text is in templates/, the paper's numbers in paper_tables.py.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jinja2

from pipelines.report.documents import ABLATION, EVALUATION, SAMPLES, STUDY, TABLE_3, TABLE_4, TIMINGS, read_document
from pipelines.report.fields.section import field_section
from pipelines.report.from_noise import Drawn, drawn_images
from pipelines.report.gallery import extremes, gallery_rows, patches, strips
from pipelines.report.paper_tables import ORDERINGS
from pipelines.report.picture_metrics import RANKED, measure_pictures
from pipelines.report.pictures import Pictures, find_pictures, title_of
from pipelines.report.stages import leaves, stage_facts
from pipelines.report.study_section import study_section
from pipelines.report.tables import RunResults, paper_tables, times
from pipelines.report.verdict import held_out_losses, run_verdict, training_verdict
from pipelines.runs.run_folder import Run, open_run, write_atomic
from pipelines.sampling.held_out import is_ablation
from pipelines.shards.mixtures import data_names
from sr3core import strict_json
from sr3core.sizes import rows_by_columns

MAX_ROWS = 12
NUM_PATCHES = 4


def write_report(run: str, study: str | None = None, others: Sequence[str] = ()) -> Path:
    """Write RUN/report.html from the content of the run folder and of a study's; what is missing gets a one-line note.

    Args:
        run: the run whose images, losses and cost are shown.
        study: folder that `sr3 study results` wrote to; RUN/study by default.
        others: further runs whose numbers are shown beside the paper's, in the tables of their task.

    Raises:
        DataError: a run is not a run folder.
        ConfigError: it has another format version.
    """
    opened = open_run(run)
    path = opened.path / "report.html"
    content = gather(opened, study, [open_run(other) for other in others])
    page = environment().get_template("report.html.j2").render(content)
    write_atomic(path, page.encode(errors="backslashreplace").decode())  # names of files may be no text
    return path


@cache
def environment() -> jinja2.Environment:
    """The template environment."""
    folder = jinja2.FileSystemLoader(Path(__file__).parent / "templates")
    found = jinja2.Environment(loader=folder, autoescape=True, undefined=jinja2.StrictUndefined)
    found.trim_blocks = found.lstrip_blocks = True
    return found


def gather(run: Run, study: str | None = None, others: Sequence[Run] = ()) -> dict[str, Any]:
    """Everything the page shows."""
    notes: list[str] = []
    ours, *theirs = (_results(each, notes) for each in (run, *others))
    evaluation = ours.evaluation
    drawn = drawn_images(run, ours.table_4, notes)
    fields = field_section(run, notes)
    pictures = _pictures(run, evaluation["keys"] if evaluation else [], notes)
    measured = measure_pictures(pictures, notes, evaluation["variants"] if evaluation else RANKED)
    return {
        "preset": run.config.name,
        "name": run.path.name,
        "data": " + ".join(data_names(run.data)),
        "ends": [rows_by_columns(size).replace("x", "×") for size in ours.ends or ()],
        "times": times(*ours.ends) if ours.ends else None,
        "ablated": is_ablation(run),
        "verdict": fields["verdict"] if fields else _verdict(run, evaluation, drawn),
        "drawn": drawn,
        "fields": fields,
        "evaluation": evaluation,
        "results": ours.methods,
        "others": theirs,
        "paired": _paired([stage.name for stage in run.regressions()], evaluation),
        "orderings": ORDERINGS,
        "tables": paper_tables([ours, *theirs]),
        "ablation": next((each.ablation for each in (ours, *theirs) if each.ablation), None),
        "gallery": gallery_rows(pictures, pictures.keys[:MAX_ROWS], measured),
        "patches": patches(pictures, pictures.keys[:NUM_PATCHES]),
        "strips": strips(pictures),
        "num_pictures": len(pictures.keys),
        "measured": measured,
        "extremes": extremes(pictures, measured),
        "stages": ours.stages,
        "sampling": read_document(run.path / "samples" / "samples.json", SAMPLES, notes),
        "timings": (read_document(run.path / "timings.json", TIMINGS, notes) or {}).get("parts", []),
        "provenance": leaves({key: value for key, value in run.provenance.items() if key != "config"}),
        "evaluated": leaves({k: evaluation.get(k) for k in ("seed", "schedules", "provenance")} if evaluation else {}),
        "fingerprint": strict_json.loads((run.path / "config.json").read_bytes()).get("fingerprint", ""),
        "study": study_section(run.path, study, lambda path: read_document(path, STUDY, notes)),
        "notes": notes,
    }


def _verdict(run: Run, evaluation: Mapping[str, Any] | None, drawn: Drawn | None) -> list[str]:
    """What the numbers say, for the top of the page; of a run that draws from noise, first about what it drew."""
    if drawn is not None:
        return drawn.verdict + _verdict(run, evaluation, None)
    if evaluation is None or is_ablation(run):  # an ablation's verdicts stand beside its differences
        return training_verdict(held_out_losses(run))
    return run_verdict(run, evaluation)


def _pictures(run: Run, keys: Sequence[str], notes: list[str]) -> Pictures:
    """The pictures of a run: input, bicubic, each regression baseline (or ablation arm), SR3, original."""
    regressions = [stage.name for stage in run.regressions()]
    trained = [stage.name for stage in run.cascade()] if is_ablation(run) else regressions
    methods = {name: title_of(name, regressions) for name in ("low", "bicubic", *trained, "sr3", "reference")}
    return find_pictures(run.path / "samples", methods, keys, notes)


def _results(run: Run, notes: list[str]) -> RunResults:
    """A run's measurements."""
    evaluation = read_document(run.path / "evaluation.json", EVALUATION, notes)
    cascade = [stage.config.model for stage in run.cascade()]
    regressions = [stage.name for stage in run.regressions()]
    return RunResults(
        name=run.path.name,
        preset=run.config.name,
        data=" + ".join(data_names(run.data)),
        ends=(cascade[0].low_size, cascade[-1].high_size) if cascade and cascade[0].low_size else None,
        stages=[stage_facts(stage, notes) for stage in run.stages],
        evaluation=evaluation,
        methods={title_of(row["name"], regressions): row for row in evaluation["methods"]} if evaluation else {},
        table_3=read_document(run.path / "table-3.json", TABLE_3, notes),
        table_4=read_document(run.path / "table-4.json", TABLE_4, notes),
        ablation=read_document(run.path / "ablation.json", ABLATION, notes),
    )


def _paired(regressions: Sequence[str], evaluation: Mapping[str, Any] | None) -> dict[str, dict[str, float]]:
    """Metric -> the regression's value minus SR3's on the same images, with its interval."""
    differences = (evaluation or {}).get("differences", {})
    found = [differences[name] for name in regressions if name in differences]
    return {name: gap for name, gap in found[0].items() if name != "than"} if len(found) == 1 else {}
