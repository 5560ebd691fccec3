"""`sr3 status`: how far a run or a preparation is, from files alone, so also from another machine."""

from dataclasses import asdict
from typing import Any

from pipelines.prepare_status import prepare_status
from pipelines.runs import open_run
from pipelines.stages import progress_of, steps_done
from pipelines.storage import exists, join
from sr3core.errors import DataError


def status_of(path: str) -> dict[str, Any]:
    """State of a run folder or a preparation.

    Raises:
        DataError: path is neither.
    """
    if exists(join(path, "config.json")):
        run = open_run(path)
        stages = [
            {
                "stage": stage.name,
                "step": steps_done(stage),
                "num_steps": stage.config.num_steps,
                "progress": progress_of(stage),
                "schedules": sorted(file.stem for file in stage.schedules.glob("*.json")),
            }
            for stage in run.stages
        ]
        return {"kind": "run", "preset": run.config.name, "data": run.data, "stages": stages}
    try:
        found = prepare_status(path)
    except DataError as error:
        raise DataError(f"{path} is neither a run (no config.json) nor a preparation: {error}") from error
    return {"kind": "preparation", "lines": found.lines(), **asdict(found)}


def describe(status: dict[str, Any]) -> str:
    """The state in lines for people."""
    if status["kind"] == "preparation":
        return "\n".join(status["lines"])
    lines = [f"run of preset {status['preset']} on {status['data']}"]
    for stage in status["stages"]:
        found = f"; schedules: {', '.join(stage['schedules'])}" if stage["schedules"] else ""
        lines.append(f"{stage['progress']} (checkpoint at {stage['step']}){found}")
    return "\n".join(lines)
