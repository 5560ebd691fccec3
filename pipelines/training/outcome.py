"""How the last command that trained a stage ended, for those who ask later or elsewhere: RUN/<stage>/outcome.json."""

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from pipelines.runs.run_folder import StageRun, write_atomic


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a stage's training."""

    error: str | None
    """Why it failed; None while it trains, and when it is done or was interrupted."""
    written: float
    """Unix time, seconds."""


def write_outcome(stage: StageRun, error: str | None) -> None:
    """Write how it went, also into the run's bucket."""
    path = _path(stage.path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, json.dumps(asdict(Outcome(error, time.time()))))
    if stage.bucket is not None:
        stage.bucket.push(path)


def read_outcome(folder: Path) -> Outcome | None:
    """How it went; None for a stage that no command has trained yet."""
    path = _path(folder)
    return Outcome(**json.loads(path.read_text())) if path.is_file() else None


def _path(folder: Path) -> Path:
    return folder / "outcome.json"
