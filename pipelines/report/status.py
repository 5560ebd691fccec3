"""`sr3 status`: the progress of a run or a preparation, read only from files, so it also works on another machine."""

import time
from dataclasses import asdict
from pathlib import Path
from shlex import quote
from typing import Any

from pipelines.prepare.finished.status import prepare_status
from pipelines.registry.registry import Registry
from pipelines.report import next_commands
from pipelines.runs.run_folder import open_run, read_metrics
from pipelines.runtime.progress_display import duration
from pipelines.settings.mixtures import describe_data
from pipelines.storage.leases.folder_lease import is_busy
from pipelines.storage.uris import absolute, exists, join
from pipelines.training.bad_steps import bad_steps
from pipelines.training.checkpoints import steps_done
from pipelines.training.outcome import read_outcome
from pipelines.training.pulse import read_pulse
from pipelines.training.spending import Cost, read_cost
from pipelines.training.stage_progress import progress_of
from sr3core.errors import DataError


def status_of(path: str) -> dict[str, Any]:
    """The state of a run or a preparation.

    Raises:
        DataError: path is neither of them.
    """
    if exists(join(path, "config.json")):
        run = open_run(path)
        is_trained = is_busy(run.location, "training")
        stages = [
            {
                "stage": stage.name,
                "step": steps_done(stage),
                "num_steps": stage.config.num_steps,
                "progress": (progress := progress_of(stage, is_trained=is_trained)).line(),
                "seconds_left": progress.seconds_left,
                "last_sign": pulse.written if (pulse := read_pulse(stage.path)) else None,
                "newest": newest_metrics(stage.metrics),
                "error": outcome.error if (outcome := read_outcome(stage.path)) else None,
                "bad_steps": sorted(bad_steps(stage.incidents)),
                "schedules": sorted(file.stem for file in stage.schedules.glob("*.json")),
            }
            for stage in run.stages
        ]
        return {
            "kind": "run",
            "preset": run.config.name,
            "data": describe_data(run.data),
            "stages": stages,
            "cost": asdict(cost) if (cost := read_cost(run.path)) else None,
            "next": next_commands.of_run(run, is_trained),
        }
    try:
        found = prepare_status(path)
    except DataError as error:
        if Registry(absolute(path)).versions():
            raise DataError(f"{path} is a registry: `sr3 models {quote(str(path))}` lists its versions") from error
        raise DataError(
            f"{path} is neither a run of `sr3 train` (it has no config.json) nor prepared data: {error}"
        ) from error
    following = next_commands.of_preparation(found, is_busy(path, "preparing"))
    return {"kind": "preparation", "lines": found.lines(), **asdict(found), "next": following}


def describe(status: dict[str, Any]) -> str:
    """The state as readable lines."""
    if status["kind"] == "preparation":
        return "\n".join([*status["lines"], *status["next"]])
    lines = [f"run of preset {status['preset']} on {status['data']}"]
    for stage in status["stages"]:
        found = f"; schedules: {', '.join(stage['schedules'])}" if stage["schedules"] else ""
        lines += [stage["progress"], f"  checkpoint at {stage['step']}{_last_sign(stage)}{found}"]
        lines += [f"  {line}" for line in describe_metrics(stage["newest"])] if stage["newest"] else []
        lines += [f"  {_describe_bad_steps(stage['bad_steps'])}"] if stage["bad_steps"] else []
        lines += [f"  FAILED: {stage['error']}"] if stage["error"] else []
    if status["cost"]:
        lefts = [stage["seconds_left"] for stage in status["stages"] if stage["step"] < stage["num_steps"]]
        unknown = None in lefts
        lines.append(Cost(**status["cost"]).line(None if unknown else max(lefts, default=0.0)))
    return "\n".join([*lines, *status["next"]])


def _describe_bad_steps(steps: list[int]) -> str:
    """`2 bad steps skipped, the last at 1200; incidents.jsonl names their samples`."""
    what = f"{len(steps)} bad steps" if len(steps) > 1 else "1 bad step"
    return f"{what} skipped, the last at {steps[-1]}; incidents.jsonl names their samples"


def _last_sign(stage: dict[str, Any]) -> str:
    """The time since an unfinished stage last wrote, which reveals a command that has ended or hangs."""
    written = stage["last_sign"] or (stage["newest"] or {}).get("written")
    if written is None or stage["step"] >= stage["num_steps"]:
        return ""
    return f", last sign of life {duration(max(time.time() - written, 0))} ago"


def newest_metrics(path: Path) -> dict[str, Any] | None:
    """The last line of metrics.jsonl about training steps; None before the first one."""
    lines = [line for line in read_metrics(path) if line["kind"] == "train"]
    return lines[-1] if lines else None


def describe_metrics(line: dict[str, Any]) -> list[str]:
    """`learning rate 0.0001, gradient norm 0.31, data wait 0.2%` and `memory 1.3 GB, 2 workers`, and MFU if known."""
    return [
        ", ".join(
            [
                f"learning rate {line['learning_rate']:.3g}",
                f"gradient norm {line['gradient_norm']:.3g}",
                f"data wait {line['data_wait']:.1%}",
            ]
        ),
        ", ".join(
            [
                f"memory {line['memory_bytes'] / 1e9:.1f} GB",
                f"{line['world_size']} workers" if line["world_size"] > 1 else "1 worker",
                *([f"model FLOP utilisation {line['mfu']:.1%}"] if "mfu" in line else []),
            ]
        ),
    ]
