"""The files of a registry's version: which of a run's belong to it, and whether they are still what was published."""

import hashlib
from pathlib import Path

from pipelines.runs.run_folder import Run
from pipelines.runs.stage_run import MEAN
from pipelines.storage.uris import exists, join, list_files, open_seekable
from sr3core import strict_json
from sr3core.config import to_dict
from sr3core.errors import CheckpointError

_WEIGHTS = ".safetensors"


def collect_version(run: Run, folder: Path) -> dict[str, Path]:
    """The files of a version by their paths in it: configuration, weights to sample with, the best schedules."""
    from sr3core.checkpoint import verify
    from sr3core.sampling_checkpoint import write_sampling_state

    content = strict_json.loads((run.path / "config.json").read_bytes()) | {"config": to_dict(run.config)}
    (folder / "config.json").write_text(strict_json.dumps(content, indent=1), encoding="utf-8")
    files = {"config.json": folder / "config.json"}
    for stage in run.stages:
        info = stage.weights.fetch(stage.weights.newest())
        verify(info)
        place = f"{stage.name}/checkpoints/{info.path.name}"
        state = folder / stage.name / "state.json"
        weights = write_sampling_state(info, state)
        files |= {f"{place}/{weights.name}": weights, f"{place}/state.json": state}
        files |= {f"{stage.name}/schedules/{path.name}": path for path in sorted(stage.schedules.glob("*.json"))}
        if stage.mean is not None:
            mean = stage.mean.fetch(stage.mean.newest())
            verify(mean)
            files |= {f"{stage.name}/{MEAN}/{path.name}": path for path in sorted(mean.path.iterdir())}
    return files


def check_small_files(location: str, sums: dict[str, str]) -> None:
    """Check all files of a version but its weights, which are verified when they are loaded.

    Raises:
        CheckpointError: one is missing or was changed, or a schedule was added.
    """
    for path, expected in sums.items():
        if not path.endswith(_WEIGHTS):
            check_file(location, path, expected)
    for path, _ in list_files(location):
        if "/schedules/" in path and path not in sums:
            raise CheckpointError(f"{join(location, path)} is not part of this version, but would be used; delete it")


def check_file(uri: str, path: str, expected: str) -> None:
    """Compare one file of a version with its recorded SHA-256.

    Raises:
        CheckpointError: it is missing or was changed.
    """
    file = join(uri, *path.split("/"))
    if not exists(file):
        raise CheckpointError(f"{file} is missing; restore it, or use another version")
    with open_seekable(file) as opened:
        found = hashlib.file_digest(opened, "sha256").hexdigest()
    if found != expected:
        raise CheckpointError(f"{file} is damaged: its sha256 is not the recorded one; use another version")


def sha256_of_file(path: Path) -> str:
    """SHA-256 of a local file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
