"""Pictures of a search: noise levels against steps, the objective against trials, the front."""

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tune.search.records.search_report import SearchReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {"default": "#4c566a", "warm start": "#d08700", "search": "#2e86c1", "refinement": "#8e44ad"}
BEST = "#c0392b"


def write_plots(report: SearchReport, folder: Path) -> list[Path]:
    """Draw gammas.svg, trials.svg and, where steps were searched, front.svg into a folder; also as PNG."""
    wanted: dict[str, Callable[[Axes, SearchReport], None]] = {"gammas": plot_gammas, "trials": plot_trials}
    if report.front:
        wanted["front"] = plot_front
    written = []
    for name, draw in wanted.items():
        written += _save(folder / name, draw, report)
    return written


def _save(path: Path, draw: "Callable[[Axes, SearchReport], None]", report: SearchReport) -> list[Path]:
    from matplotlib.figure import Figure  # not pyplot: no global state, no display

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    draw(axes, report)
    axes.spines[["top", "right"]].set_visible(False)
    files = [path.with_suffix(suffix) for suffix in (".svg", ".png")]
    for file in files:
        figure.savefig(file, dpi=130, metadata={"Date": None} if file.suffix == ".svg" else None)
    return files


def plot_gammas(axes: "Axes", report: SearchReport) -> None:
    """Noise level against the share of the chain that is walked: the best, the defaults, and all others faintly."""
    from matplotlib.ticker import MaxNLocator

    best = report.trial(report.best)
    shown = [trial for trial in report.trials if trial.status != "failed" and trial.budget == best.budget]
    for trial in shown:
        if trial.origin != "default" and trial.name != best.name:
            axes.plot(*_noise(trial.gammas), color="#b8c4ce", linewidth=0.7, zorder=1)
    by_levels: dict[tuple[float, ...], list[str]] = {}  # DDIM's are those of the trained schedule
    for trial in sorted(shown, key=lambda trial: trial.name):
        if trial.origin == "default":
            by_levels.setdefault(trial.gammas, []).append(trial.name.removesuffix(f"-{trial.budget}"))
    looks = itertools.product((COLOURS["default"], "#7a9a3a"), ("-", "--", ":", "-."))
    for (gammas, names), (colour, style) in zip(by_levels.items(), looks, strict=False):
        axes.plot(*_noise(gammas), color=colour, linestyle=style, label=", ".join(names), zorder=2)
    axes.plot(
        *_noise(best.gammas), color=BEST, linewidth=2, marker="o", markersize=3, label=f"best: {best.name}", zorder=3
    )
    axes.set_yscale("log")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("t, denoising runs from right to left")
    axes.set_ylabel(r"noise to signal, $\sqrt{(1-\gamma_t)\,/\,\gamma_t}$")
    axes.set_title(f"{report.stage}: noise levels at {best.budget} evaluations", loc="left")
    axes.legend(frameon=False, fontsize=8)


def _noise(levels: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    gammas = np.array(levels[1:])
    return np.arange(1, len(gammas) + 1), np.sqrt((1 - gammas) / gammas)


def plot_trials(axes: "Axes", report: SearchReport) -> None:
    """The objective of every trial in the order in which they ended, and the best so far."""
    from matplotlib.ticker import MaxNLocator

    done = [(n, t) for n, t in enumerate(report.trials, start=1) if t.status == "done" and t.objective is not None]
    for origin, colour in COLOURS.items():
        points = [(n, trial.objective or 0.0) for n, trial in done if trial.origin == origin]
        if points:
            axes.scatter(*zip(*points, strict=True), color=colour, s=22, label=origin, zorder=2)
    values = [trial.objective or 0.0 for _, trial in done]
    axes.step([n for n, _ in done], np.minimum.accumulate(values), where="post", color=BEST, label="best so far")
    others = {status: sum(t.status == status for t in report.trials) for status in ("stopped", "failed")}
    note = ", ".join(f"{count} {status}" for status, count in others.items() if count)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("trial" + (f" (not shown: {note})" if note else ""))
    axes.set_ylabel(_objective_label(report))
    axes.set_title(f"{report.stage}: {len(report.trials)} trials, at most {report.num_steps} evaluations", loc="left")
    low, high = min(values), float(np.quantile(values, 0.9))
    if max(values) > high + 2 * (high - low) > 0:  # one hopeless trial must not flatten all others
        axes.set_ylim(low - 0.1 * (high - low), high + 0.5 * (high - low))
        axes.set_xlabel(axes.get_xlabel() + "; worst trials above the frame")
    axes.legend(frameon=False, fontsize=8)


def plot_front(axes: "Axes", report: SearchReport) -> None:
    """The objective against the number of evaluations; the front is what nothing cheaper beats."""
    done = [trial for trial in report.trials if trial.status == "done" and trial.objective is not None]
    for origin, colour in COLOURS.items():
        points = [(trial.num_evaluations, trial.objective or 0.0) for trial in done if trial.origin == origin]
        if points:
            axes.scatter(*zip(*points, strict=True), color=colour, s=18, alpha=0.7, label=origin)
    front = [report.trial(name) for name in report.front]
    axes.plot(
        [trial.num_evaluations for trial in front],
        [trial.objective or 0.0 for trial in front],
        color=BEST,
        marker="o",
        label="front",
    )
    ticks = sorted({trial.num_evaluations for trial in done})
    axes.set_xscale("log")
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("network evaluations")
    axes.set_ylabel(_objective_label(report))
    axes.set_title(f"{report.stage}: {report.label}", loc="left", fontsize=9)
    axes.legend(frameon=False, fontsize=8)


def _objective_label(report: SearchReport) -> str:
    name = {
        "fid": "FID" if report.is_fid else "distance",
        "kid": "KID" if report.is_fid else "kernel distance",
    }
    return f"{name.get(report.config.objective, 'weighted objective')}, n = {report.num_images}"
