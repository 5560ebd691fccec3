"""How a stage's last training ended, readable later and from other machines: RUN/<stage>/outcome.json."""

import time
from dataclasses import asdict, dataclass
from pathlib import Path

from pipelines.runs.run_folder import StageRun, write_atomic
from pipelines.storage.versioned_json import decoding
from sr3core import strict_json
from sr3core.config import from_dict


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a stage's last training ended."""

    error: str | None
    """Why it failed; None while it trains, and after it has finished or was interrupted."""
    written: float
    """Unix time, seconds: when it began or ended."""
    stopped: bool = False
    """Whether it was interrupted."""


def write_outcome(stage: StageRun, error: str | None, stopped: bool = False) -> None:
    """Record an outcome, also in the run's bucket."""
    path = _path(stage.path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, strict_json.dumps(asdict(Outcome(error, time.time(), stopped))))
    if stage.bucket is not None:
        stage.bucket.push(path)


def read_outcome(folder: Path) -> Outcome | None:
    """Read a stage folder's outcome; None if no command has trained it yet.

    Raises:
        DataError: its file is damaged.
    """
    path = _path(folder)
    if not path.is_file():
        return None
    with decoding(path, "outcome", "delete it"):
        return from_dict(Outcome, strict_json.loads(path.read_bytes()))


def _path(folder: Path) -> Path:
    return folder / "outcome.json"
