"""Figures 6 and 7 (fool rates), D.1 and D.2 (images with extreme fool rates), and fool rates by viewing time."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from pipelines.study.study_folder import Study

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#4c7aa8", "#d08700", "#4f8f5b", "#8e5aa8", "#a85050", "#5a6b7b")
INK = "#1b1f24"
CHANCE = 50
"""Percent: outputs and originals are indistinguishable."""


def write_figures(results: dict[str, Any], studies: Sequence[Study], folder: Path) -> None:
    """Draw fool-rates, viewing-times if several were declared, and each task's extremes if any, as SVG and PNG."""
    folder.mkdir(parents=True, exist_ok=True)
    tasks = results["tasks"]
    _save(folder / "fool-rates", (6.4, 1.0 + 2.6 * len(tasks)), len(tasks), lambda axes: draw_rates(axes, tasks))
    if any(len({row["viewing_seconds"] for row in task["by_viewing_time"]}) > 1 for task in tasks):
        _save(folder / "viewing-times", (6.4, 1.0 + 2.6 * len(tasks)), len(tasks), lambda axes: _times(axes, tasks))
    by_task = {study.config.task: study for study in studies}
    for task in tasks:
        _write_extremes(task, by_task[task["task"]], folder / f"extremes-task-{task['task']}.png")


def _save(path: Path, size: tuple[float, float], rows: int, draw: "Callable[[Sequence[Axes]], None]") -> None:
    figure = _figure(size)
    axes = figure.subplots(rows, 1, sharex=True, squeeze=False)
    draw(list(axes[:, 0]))
    for one in axes.flat:
        one.axhline(CHANCE, color=INK, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
        one.set_ylim(0, 112)  # room for the number above an interval that ends at 100
        one.set_yticks(range(0, 101, 20))
        one.set_ylabel("fool rate, %")
        one.spines[["top", "right"]].set_visible(False)
    for suffix in (".svg", ".png"):
        figure.savefig(path.with_suffix(suffix), dpi=130, metadata={"Date": None} if suffix == ".svg" else None)


def _figure(size: tuple[float, float]) -> "Figure":
    from matplotlib.figure import Figure  # not pyplot: no global state, no display

    return Figure(figsize=size, layout="constrained", facecolor="white")


def _title(task: dict[str, Any]) -> str:
    return f"Task {task['task']}: inputs are {'shown' if task['task'] == 1 else 'not shown'}"


def _errors(rows: Sequence[dict[str, Any]]) -> list[list[float]]:
    return [[100 * (r["rate"] - r["low"]) for r in rows], [100 * (r["high"] - r["rate"]) for r in rows]]


def draw_rates(axes: "Sequence[Axes]", tasks: Sequence[dict[str, Any]]) -> None:
    """Figures 6 and 7: a bar per model, with its two-way interval; the dashed line is chance."""
    for one, task in zip(axes, tasks, strict=True):
        rows = task["models"]
        colours = [COLOURS[index % len(COLOURS)] for index in range(len(rows))]
        places = range(len(rows))
        one.bar(places, [100 * r["rate"] for r in rows], 0.62, color=colours, zorder=2)
        one.errorbar(
            places, [100 * r["rate"] for r in rows], _errors(rows), fmt="none", ecolor=INK, capsize=5, zorder=3
        )
        for place, row in zip(places, rows, strict=True):
            label = one.text(place, 100 * row["high"] + 3, f"{100 * row['rate']:.1f}", ha="center", va="bottom")
            label.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 1})
        one.set_xticks(places, [row["model"] for row in rows])
        one.set_xlim(-0.6, max(len(rows) - 0.4, 1.6))
        one.set_title(_title(task), loc="left", fontsize=10)


def _times(axes: "Sequence[Axes]", tasks: Sequence[dict[str, Any]]) -> None:
    """Fool rate against viewing time: section 4.2.2 found it similar up to 12 seconds."""
    for one, task in zip(axes, tasks, strict=True):
        for index, model in enumerate(dict.fromkeys(row["model"] for row in task["by_viewing_time"])):
            rows = [row for row in task["by_viewing_time"] if row["model"] == model]
            rows.sort(key=lambda row: row["viewing_seconds"])
            seconds = [row["viewing_seconds"] for row in rows]
            rates, colour = [100 * row["rate"] for row in rows], COLOURS[index % len(COLOURS)]
            one.errorbar(seconds, rates, _errors(rows), color=colour, marker="o", capsize=4, label=model, zorder=2)
        one.set_title(_title(task), loc="left", fontsize=10)
        one.legend(frameon=False, fontsize=8)
    axes[-1].set_xlabel("viewing time, seconds")


def _write_extremes(task: dict[str, Any], study: Study, path: Path) -> None:
    """Figures D.1 and D.2: input (Task 1), output and original of each extreme image, with its fool rate below."""
    pictures = study.plan.pictures
    lines = [(model, which) for model in task["extremes"] for which in ("lowest", "highest")]
    lines = [(model, which) for model, which in lines if task["extremes"][model][which]]
    if not lines:
        path.unlink(missing_ok=True)  # of earlier results
        return
    width = max(len(task["extremes"][model][which]) for model, which in lines)
    columns = 3 if task["task"] == 1 else 2
    figure = _figure((1.45 * columns * width + 0.3, 2.05 * len(lines) + 0.4))
    grid = figure.subplots(len(lines), columns * width, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for row, (model, which) in enumerate(lines):
        for number, entry in enumerate(task["extremes"][model][which]):
            shown = {"output": pictures.outputs[model][entry["image"]], "original": pictures.originals[entry["image"]]}
            if task["task"] == 1:
                shown = {"input": pictures.inputs[entry["image"]], **shown}
            for column, (title, file) in enumerate(shown.items()):
                axes = grid[row, columns * number + column]
                with Image.open(study.picture(file)) as image:
                    axes.imshow(image.convert("RGB"))
                below = f"{title}\n{100 * entry['rate']:.0f}% of {entry['num_trials']}" if title == "output" else title
                axes.set_title(below, y=0, va="top", pad=-4, fontsize=8)
        heading = grid[row, 0].text(0, 1.04, f"{which} fool rates of {model}", transform=grid[row, 0].transAxes)
        heading.set_in_layout(False)  # it is wider than the picture below it
    figure.savefig(path, dpi=110)
