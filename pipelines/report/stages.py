"""What the report shows of each stage: configuration, size, cost, losses, searches and schedules."""

from pathlib import Path
from statistics import median
from typing import Any

from pipelines.report.documents import SEARCH, read_document
from pipelines.report.pictures import note
from pipelines.report.plots import NUM_STYLES, loss_charts
from pipelines.report.search_plots import cost_chart, schedule_chart, trade_off_chart
from pipelines.report.verdict import is_judged_by_kid, search_verdict
from pipelines.runs.run_folder import StageRun, read_metrics
from pipelines.settings.train import PlacementConfig
from sr3core.config import to_dict
from sr3core.diffusion.schedules import InferenceSchedule, default_schedule, schedule_from_json, training_gammas
from sr3core.errors import CheckpointError, ConfigError
from sr3core.hyperparameters import ModelConfig


def leaves(data: Any, path: str = "") -> dict[str, Any]:
    """Nested JSON as dotted names -> leaves; a list without objects is a leaf."""
    if not isinstance(data, dict):
        return {path: data}
    parts = [leaves(value, f"{path}.{key}" if path else key) for key, value in data.items()]
    return {name: leaf for part in parts for name, leaf in part.items()}


def stage_facts(stage: StageRun, notes: list[str]) -> dict[str, Any]:
    """One stage: configuration, size, cost, losses, schedules."""
    config, lines = stage.config, read_metrics(stage.metrics)
    train = [line for line in lines if line["kind"] == "train"]
    held_out = [line["loss"] for line in lines if line["kind"] == "validation"]
    searches = [found for path in stage.path.glob("search/*/search.json") if (found := _search(path, notes))]
    return {
        "name": stage.name,
        "config": config,
        "settings": leaves(to_dict(config)),
        "num_parameters": _num_parameters(config.model),
        "steps_done": lines[-1]["step"] if lines else 0,
        "finished": bool(lines) and lines[-1]["step"] >= config.num_steps,
        "seconds": lines[-1]["seconds"] if lines else None,
        "images_per_second": median(line["images_per_second"] for line in train) if train else None,
        "data_wait": median(line["data_wait"] for line in train) if train else None,
        "held_out": (held_out[0], min(held_out), held_out[-1]) if held_out else None,
        "core_hours": _unit_hours(config.placement, lines),
        "charts": loss_charts(stage.name, lines),
        "searches": sorted(searches, key=lambda found: (found["num_steps"], found["name"])),
        "schedules": _schedules(stage, notes),
    }


def _unit_hours(place: PlacementConfig, lines: list[dict[str, Any]]) -> float | None:
    """GPU hours, or CPU core hours if the stage trains on CPUs."""
    if not lines:
        return None
    units = 1 if place.use_gpu else max(1, int(place.cpus_per_worker))
    return lines[-1]["seconds"] * max(place.num_workers, 1) * units / 3600


def _num_parameters(model: ModelConfig) -> int:
    import torch

    from sr3core.networks.building import build_network
    from sr3core.networks.unet import num_parameters

    with torch.device("meta"):  # only shapes: the paper's networks would take gigabytes
        return num_parameters(build_network(model))


def _search(path: Path, notes: list[str]) -> dict[str, Any] | None:
    """A search's content with charts, its trials sorted best first; None if it cannot be read."""
    content = read_document(path, SEARCH, notes)
    if content is None:
        return None
    by_kid = is_judged_by_kid(content)
    content = _by_kernel_distance(content) if by_kid else content
    trials = {trial["name"]: trial for trial in content["trials"]}
    if not {content["best"], content["default"]} <= trials.keys():
        note(f"{path.name} is damaged and omitted: its best or its default is none of its trials", notes)
        return None
    best, default = trials[content["best"]], trials[content["default"]]
    judged = [trial for trial in trials.values() if trial["status"] == "done"]
    levels = {f"best: {best['name']}": best["gammas"]}
    if best != default:
        levels[f"default: {default['name']}"] = default["gammas"]
    words = ("KID", "Kernel distance") if by_kid else ("FID", "Distance")
    word = words[0 if content["is_fid"] else 1]
    charts = (
        schedule_chart(f"{content['stage']}: noise levels of {content['num_steps']} steps", levels),
        cost_chart(judged, content.get("front", ()), word),
        trade_off_chart(judged, best["name"], default["name"], word),
    )
    origin = {key: value for key, value in content["provenance"].items() if key != "config"}
    rank = {"done": 0, "stopped": 1, "failed": 2}
    order = sorted(trials.values(), key=lambda t: (rank[t["status"]], t["objective"] or 0.0, t["name"]))
    return {
        **content,
        "name": path.parent.name,
        "verdict": search_verdict(content),
        "word": word,
        "best": best,
        "default": default,
        "trials": order,
        "charts": [chart for chart in charts if chart],
        "settings": leaves({"config": content["config"], "provenance": origin}),
    }


def _by_kernel_distance(content: dict[str, Any]) -> dict[str, Any]:
    """A search's content with the distance that decided it where the other one was."""

    def with_kid(part: dict[str, Any]) -> dict[str, Any]:
        kids = [{"distance": trial.get("kid"), "standard_error": trial.get("kid_error")} for trial in part["trials"]]
        shown = [trial | kid for trial, kid in zip(part["trials"], kids, strict=True)]
        label = part.get("label", "").replace("FID", "KID", 1).replace(", extrapolated to infinitely many", "")
        return {**part, "trials": shown, "label": label}

    sure = content.get("confirmation")
    return {**with_kid(content), "confirmation": with_kid(sure) if sure else None}


def _schedules(stage: StageRun, notes: list[str]) -> dict[str, Any] | None:
    """The schedule files of a stage, beside the trained levels and their respacings; None for regression."""
    if stage.config.model.kind == "regression":
        return None
    found: dict[str, InferenceSchedule] = {}
    for path in sorted(stage.schedules.glob("*.json"), key=_by_number):
        try:
            found[path.stem] = schedule_from_json(path.read_bytes(), path.name)
        except (CheckpointError, ConfigError) as error:
            note(str(error), notes)
    training = stage.config.model.noise_schedule
    steps = min(max((schedule.num_steps for schedule in found.values()), default=100), training.num_steps)
    respaced = {f"trained schedule, respaced to {steps}": default_schedule(training, steps).gammas}
    names, room = list(found), NUM_STYLES - 1
    charts = [
        schedule_chart(
            f"{stage.name}: schedules",
            {name: found[name].gammas for name in names[start : start + room]} | respaced,
            share=True,
        )
        for start in range(0, len(names), room)
    ]
    trained = schedule_chart(
        f"{stage.name}: {training.num_steps} steps of training, {training.family}",
        {"training": tuple(training_gammas(training))},
    )
    alone = [] if found else [schedule_chart(f"{stage.name}: {next(iter(respaced))}", respaced)]
    return {"charts": [chart for chart in (trained, *charts, *alone) if chart], "files": found}


def _by_number(path: Path) -> tuple[str, int]:
    """Sort key that puts best-10 before best-100, and after best-9."""
    kind, _, number = path.stem.rpartition("-")
    return (kind, int(number)) if number.isdecimal() else (path.stem, 0)
