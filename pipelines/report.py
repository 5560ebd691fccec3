"""`sr3 report`: a run as one self-contained HTML file that opens without a network.

This module gathers the numbers and pictures; the words, and the paper's numbers, are in report.html.j2.
"""

import base64
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import jinja2
import numpy as np
from PIL import Image

from pipelines.report_plots import front_chart, loss_charts, schedule_chart
from pipelines.report_study import RESULTS_FORMAT, study_section
from pipelines.runs import Run, StageRun, open_run, read_metrics, write_atomic
from sr3core.config import to_dict
from sr3core.errors import CheckpointError
from sr3core.schedules import InferenceSchedule, default_schedule, schedule_from_json

EVALUATION_FORMAT = ("sr3-evaluation", 1)
SEARCH_FORMAT = ("sr3-search", 2)  # written by tune, which pipelines may not import
MAX_ROWS = 12
MAX_GALLERY_BYTES = 9_000_000  # beyond it the file would open slowly; the gallery ends early and says so
MAX_MEASURED = 256  # images that are measured one by one, the first in order
NUM_EXTREMES = 3

log = logging.getLogger(__name__)


def write_report(run: str, study: str | None = None) -> Path:
    """Write RUN/report.html from what the run folder, and a study's (default RUN/study), hold; gaps are said in a line.

    Raises:
        DataError: run is no run folder.
        ConfigError: it is of another format version.
    """
    opened = open_run(run)
    folder = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=folder, autoescape=True, undefined=jinja2.StrictUndefined)
    environment.trim_blocks = environment.lstrip_blocks = True
    path = opened.path / "report.html"
    write_atomic(path, environment.get_template("report.html.j2").render(gather(opened, study)))
    return path


def gather(run: Run, study: str | None = None) -> dict[str, Any]:
    """Everything the page shows."""
    notes: list[str] = []
    evaluation = _read(run.path / "evaluation.json", EVALUATION_FORMAT, notes)
    pictures = Pictures.find(run, evaluation["keys"] if evaluation else [], notes)
    measured = pictures.measure(notes)
    ranked = sorted(measured, key=lambda key: measured[key]["SR3"]["psnr"]) if pictures.has("SR3") else []
    best = ranked[: -NUM_EXTREMES - 1 : -1] if len(ranked) >= 2 * NUM_EXTREMES else []
    cascade = [stage.config.model for stage in run.cascade()]
    return {
        "preset": run.config.name,
        "name": run.path.name,
        "data": Path(run.data).name,
        "ends": (cascade[0].low_size, cascade[-1].high_size) if cascade else None,
        "evaluation": evaluation,
        "results": {title_of(row["name"], run): row for row in evaluation["methods"]} if evaluation else {},
        "paired": _paired(measured),
        "gallery": pictures.rows(pictures.keys[:MAX_ROWS], measured),
        "num_pictures": len(pictures.keys),
        "measured": measured,
        "worst": pictures.rows(ranked[:NUM_EXTREMES], measured),
        "best": pictures.rows(best, measured),
        "stages": [_stage_facts(stage, notes) for stage in run.stages],
        "timings": (_read(run.path / "timings.json", None, notes) or {}).get("parts", []),
        "provenance": _leaves({key: value for key, value in run.provenance.items() if key != "config"}),
        "evaluated": _leaves({k: evaluation.get(k) for k in ("seed", "schedules", "provenance")} if evaluation else {}),
        "fingerprint": json.loads((run.path / "config.json").read_text()).get("fingerprint", ""),
        "study": study_section(run.path, study, lambda path: _read(path, RESULTS_FORMAT, notes)),
        "notes": notes,
    }


def _read(path: Path, wanted: tuple[str, int] | None, notes: list[str]) -> dict[str, Any] | None:
    """A JSON file, or None if it is absent, damaged or of another format; the latter two are noted."""
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        _note(f"{path.name} is damaged and left out: {error}", notes)
        return None
    found = (content.get("format"), content.get("format_version"))
    if wanted is not None and found != wanted:
        _note(f"{path.name} is left out: it is of format {found}, this program reads {wanted}", notes)
        return None
    return content


def _note(text: str, notes: list[str]) -> None:
    log.warning("report: %s", text)
    notes.append(text)


def title_of(method: str, run: Run) -> str:
    """A method's name for people: its folder in RUN/samples is named by stage."""
    regressions = [stage.name for stage in run.regressions()]
    if method in regressions:
        return "Regression" if len(regressions) == 1 else f"Regression {method.removesuffix('-regression')}"
    return {"low": "Input", "sr3": "SR3", "reference": "Original"}.get(method, method.capitalize())


Measured = Mapping[str, Mapping[str, Mapping[str, float]]]
"""Key -> method -> metric -> value."""


def _paired(measured: Measured) -> dict[str, tuple[float, float]]:
    """Metric -> mean and standard error of regression's value minus SR3's on the same image."""
    both = [row for row in measured.values() if "Regression" in row and "SR3" in row]
    found = {}
    for metric in ("psnr", "ssim", "consistency") if len(both) > 1 else ():
        gaps = np.array([row["Regression"][metric] - row["SR3"][metric] for row in both])
        found[metric] = (float(gaps.mean()), float(gaps.std(ddof=1) / np.sqrt(len(gaps))))
    return found


@dataclass(frozen=True, slots=True)
class Pictures:
    """RUN/samples: what every method made of the held-out images."""

    folder: Path
    methods: dict[str, str] = field(default_factory=dict)
    """Folder -> title, in the order of the columns."""
    keys: list[str] = field(default_factory=list)
    """Images that every method has, in the order of the evaluation."""

    @classmethod
    def find(cls, run: Run, keys: Sequence[str], notes: list[str]) -> "Pictures":
        """Look for the pictures of these keys."""
        folder = run.path / "samples"
        names = ["low", "bicubic", *(stage.name for stage in run.regressions()), "sr3", "reference"]
        methods = {name: title_of(name, run) for name in names if (folder / name).is_dir()}
        files = {key: [folder / name / f"{key}.png" for name in methods] for key in keys}
        whole = [key for key in keys if methods and all(file.is_file() for file in files[key])]
        if methods and len(whole) < len(keys):
            _note(f"{len(keys) - len(whole)} of {len(keys)} images lack a sample and are left out", notes)
        return cls(folder, methods, whole)

    def has(self, title: str) -> bool:
        """Whether there are pictures of that method."""
        return title in self.methods.values()

    def measure(self, notes: list[str]) -> dict[str, dict[str, dict[str, float]]]:
        """PSNR, SSIM and consistency of each method on each of the first images."""
        import torch  # takes seconds

        from sr3core.metrics.consistency import consistency
        from sr3core.metrics.psnr import psnr
        from sr3core.metrics.ssim import ssim

        found: dict[str, dict[str, dict[str, float]]] = {}
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # threads that wait for one another took 12 times as long on a busy machine
        for key in self.keys[:MAX_MEASURED] if self.has("Input") and self.has("Original") else ():
            try:
                images = {title: self._pixels(name, key)[None] for name, title in self.methods.items()}
            except OSError as error:
                _note(f"an image of {key} is damaged: {error}", notes)
                self.keys.remove(key)
                continue
            low, high = images.pop("Input"), images.pop("Original")
            outputs = np.concatenate(list(images.values()))
            highs, lows = high.repeat(len(outputs), 0), low.repeat(len(outputs), 0)
            values = zip(psnr(outputs, highs), ssim(outputs, highs), consistency(outputs, lows), strict=True)
            found[key] = {
                title: dict(zip(("psnr", "ssim", "consistency"), map(float, row), strict=True))
                for title, row in zip(images, values, strict=True)
            }
        torch.set_num_threads(threads)
        return found

    def rows(self, keys: Sequence[str], measured: Measured) -> list[dict[str, Any]]:
        """Embedded pictures of these keys, until they are too many bytes for a page."""
        rows, total = [], 0
        for key in keys:
            contents = {name: (self.folder / name / f"{key}.png").read_bytes() for name in self.methods}
            total += sum(map(len, contents.values()))
            if rows and total > MAX_GALLERY_BYTES:
                break
            cells = [
                {
                    "title": title,
                    "src": f"data:image/png;base64,{base64.b64encode(contents[name]).decode()}",
                    "size": Image.open(self.folder / name / f"{key}.png").size,
                    "psnr": measured.get(key, {}).get(title, {}).get("psnr"),
                }
                for name, title in self.methods.items()
            ]
            rows.append({"key": key, "number": self.keys.index(key) + 1, "cells": cells, "patch": self._patch(key)})
        return rows

    def _pixels(self, method: str, key: str) -> np.ndarray:
        with Image.open(self.folder / method / f"{key}.png") as image:
            return np.asarray(image.convert("RGB"))

    def _patch(self, key: str) -> tuple[float, float]:
        """Where to enlarge, percent: the quarter of the original with the most contrast."""
        if not self.has("Original"):
            return 50.0, 50.0
        grey = self._pixels("reference", key).mean(axis=2)
        side = max(1, min(grey.shape) // 4)
        step = max(1, side // 4)
        windows = np.lib.stride_tricks.sliding_window_view(grey, (side, side))[::step, ::step]
        contrast = windows.var(axis=(2, 3))
        row, column = np.unravel_index(int(contrast.argmax()), contrast.shape)
        return 100 * column / max(1, contrast.shape[1] - 1), 100 * row / max(1, contrast.shape[0] - 1)


def _stage_facts(stage: StageRun, notes: list[str]) -> dict[str, Any]:
    """One stage: configuration, size, cost, losses, schedules."""
    config, lines = stage.config, read_metrics(stage.metrics)
    train = [line for line in lines if line["kind"] == "train"]
    held_out = [line["loss"] for line in lines if line["kind"] == "validation"]
    searches = [_search(path, notes) for path in sorted(stage.path.glob("search/*/search.json"))]
    return {
        "name": stage.name,
        "config": config,
        "settings": _leaves(to_dict(config)),
        "num_parameters": _num_parameters(stage),
        "steps_done": lines[-1]["step"] if lines else 0,
        "finished": bool(lines) and lines[-1]["step"] >= config.num_steps,
        "seconds": lines[-1]["seconds"] if lines else None,
        "images_per_second": median(line["images_per_second"] for line in train) if train else None,
        "data_wait": median(line["data_wait"] for line in train) if train else None,
        "held_out": (held_out[0], min(held_out), held_out[-1]) if held_out else None,
        "charts": loss_charts(stage.name, lines),
        "searches": [found for found in searches if found],
        "schedules": _schedules(stage, notes),
    }


def _num_parameters(stage: StageRun) -> int:
    import torch

    from sr3core.unet import UNet, num_parameters

    with torch.device("meta"):  # shapes alone: the paper's networks would take gigabytes
        return num_parameters(UNet(stage.config.model.unet))


def _search(path: Path, notes: list[str]) -> dict[str, Any] | None:
    """A search's own content with charts, its trials the best first; None if it cannot be read."""
    content = _read(path, SEARCH_FORMAT, notes)
    if content is None:
        return None
    trials = {trial["name"]: trial for trial in content["trials"]}
    best, default = trials[content["best"]], trials[content["default"]]
    judged = [trial for trial in trials.values() if trial["status"] == "done"]
    levels = {f"best: {best['name']}": best["gammas"]}
    if best != default:
        levels[f"default: {default['name']}"] = default["gammas"]
    charts = (
        schedule_chart(f"{content['stage']}: noise levels of {content['num_steps']} steps", levels),
        front_chart(judged, best["name"], default["name"]),
    )
    rank = {"done": 0, "stopped": 1, "failed": 2}
    order = sorted(trials.values(), key=lambda t: (rank[t["status"]], t["objective"] or 0.0, t["name"]))
    return {
        **content,
        "name": path.parent.name,
        "best": best,
        "default": default,
        "trials": order,
        "charts": [chart for chart in charts if chart],
        "settings": _leaves({"config": content["config"], "provenance": content["provenance"]}),
    }


def _schedules(stage: StageRun, notes: list[str]) -> dict[str, Any] | None:
    """The schedule files of a stage beside the trained schedule respaced; None where there is none."""
    found: dict[str, InferenceSchedule] = {}
    for path in sorted(stage.schedules.glob("*.json")):
        try:
            found[path.stem] = schedule_from_json(path.read_text(), path.name)
        except CheckpointError as error:
            _note(str(error), notes)
    if not found:
        return None
    steps = max(schedule.num_steps for schedule in found.values())
    levels = {name: schedule.gammas for name, schedule in found.items()}
    training = stage.config.model.noise_schedule
    respaced = default_schedule(training, min(steps, training.num_steps))
    levels["trained schedule, respaced"] = respaced.gammas
    return {"chart": schedule_chart(f"{stage.name}: schedules", levels), "files": found}


def _leaves(data: Any, path: str = "") -> dict[str, Any]:
    """Nested JSON as dotted names and leaves; a list without objects is a leaf."""
    if not isinstance(data, dict):
        return {path: data}
    parts = [_leaves(value, f"{path}.{key}" if path else key) for key, value in data.items()]
    return {name: leaf for part in parts for name, leaf in part.items()}
