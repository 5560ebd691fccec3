"""The report of a sweep of trainings: a table, the held-out losses, and the loss against each setting."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipelines.runs.run_folder import open_run, read_metrics
from pipelines.storage.uris import join, write_atomic
from sr3core import strict_json
from sr3core.config import to_dict
from tune.sweeps.pictures import draw
from tune.sweeps.records import SweepRecords, TrainingRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def write_report(records: SweepRecords, axes: Sequence[str], label: str) -> None:
    """Write OUT/sweep.json, OUT/table.md, OUT/losses.svg and, for each setting, OUT/SETTING.svg; also as PNG."""
    content = {"format": "sr3-sweep", "format_version": 1, "trainings": [to_dict(one) for one in records.ranked]}
    write_atomic(join(records.out, "sweep.json"), strict_json.dumps(content, indent=1).encode())
    write_atomic(join(records.out, "table.md"), format_table(records, axes, label).encode())
    trained = [one for one in records.ranked if one.losses]
    if not trained:
        return
    charts = {"losses": draw(lambda picture: plot_losses(picture, records, trained, label))}
    charts |= {axis: draw(lambda picture, axis=axis: plot_axis(picture, trained, axis)) for axis in axes}
    for name, files in charts.items():
        for suffix, picture in files.items():
            write_atomic(join(records.out, f"{name}.{suffix}"), picture)


def format_table(records: SweepRecords, axes: Sequence[str], label: str) -> str:
    """The trainings as a Markdown table, the best first; losses compare at equal steps."""
    head = [*axes, "steps", "held-out loss", "status", "run"]
    rows = [[*(str(one.changes[axis]) for axis in axes), *_cells(one)] for one in records.ranked]
    lines = [f"# Sweep of {label}", "", "Held-out losses compare at equal steps only.", ""]
    lines += ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    failed = [f"Failed: {one.name}: {one.error}" for one in records.ranked if one.error]
    return "\n".join([*lines, *(text for line in failed for text in ("", line))]) + "\n"


def _cells(one: TrainingRecord) -> list[str]:
    return [str(one.step), f"{one.loss:.5g}" if one.losses else "", one.status, one.name]


def plot_losses(picture: "Axes", records: SweepRecords, trained: Sequence[TrainingRecord], label: str) -> None:
    """Held-out loss against steps, a line a training, the best in front."""
    for place, one in reversed(list(enumerate(trained))):
        (stage,) = open_run(join(records.out, one.name)).stages
        lines = [line for line in read_metrics(stage.metrics) if line["kind"] == "validation" and line["step"]]
        picture.plot(
            [line["step"] for line in lines],
            [line["loss"] for line in lines],
            label=one.name if place < 10 else None,
            color=None if place < 10 else "#c8c8c8",
            linewidth=2.2 if place == 0 else 1.0,
            zorder=3 if place == 0 else 2,
        )
    picture.set_yscale("log")
    picture.set_xlabel("steps")
    picture.set_ylabel("held-out loss")
    picture.set_title(f"sweep of {label}", loc="left")
    picture.legend(frameon=False, fontsize=7)


def plot_axis(picture: "Axes", trained: Sequence[TrainingRecord], axis: str) -> None:
    """Held-out loss at the first rung, which all reached, against the values of a setting."""
    values = list(dict.fromkeys(str(one.changes[axis]) for one in sorted(trained, key=lambda one: one.name)))
    for one in trained:
        picture.scatter(values.index(str(one.changes[axis])), one.losses[0], color="#2e86c1", s=24)
    picture.set_xticks(range(len(values)), values)
    picture.set_yscale("log")
    picture.set_xlabel(axis)
    picture.set_ylabel("held-out loss at the first rung")
