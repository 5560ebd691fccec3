"""`sr3 status`: how far a run or a preparation is, from files alone, so also from another machine."""

from typing import Any

from pipelines.runs import local_path, open_run
from pipelines.stages import progress_of, steps_done
from sr3core.errors import DataError


def status_of(path: str) -> dict[str, Any]:
    """State of a run folder or a preparation.

    Raises:
        DataError: path is neither.
    """
    if (local_path(path) / "config.json").is_file():
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
    from pipelines.preprocess import prepare_status

    found = prepare_status(path)
    if found is None:
        raise DataError(f"{path} is neither a run (no config.json) nor a preparation (no manifest)")
    return {"kind": "preparation", **found}


def describe(status: dict[str, Any]) -> str:
    """The state in lines for people."""
    if status["kind"] != "run":
        return "\n".join(f"{name}: {value}" for name, value in status.items() if name != "kind")
    lines = [f"run of preset {status['preset']} on {status['data']}"]
    for stage in status["stages"]:
        found = f"; schedules: {', '.join(stage['schedules'])}" if stage["schedules"] else ""
        lines.append(f"{stage['progress']} (checkpoint at {stage['step']}){found}")
    return "\n".join(lines)
