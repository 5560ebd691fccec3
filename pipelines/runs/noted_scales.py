"""Noting in a run's configuration what is known only in the course of its training: the scale of residuals."""

import threading
from dataclasses import replace

from pipelines.runs.stage_run import StageRun
from pipelines.storage.uris import write_atomic
from sr3core import strict_json
from sr3core.config import override

_ALONE = threading.Lock()  # the stages of a run are trained side by side, each in a thread


def note_scale(stage: StageRun, scale: tuple[float, ...]) -> StageRun:
    """Write the scale of a stage's residuals into its run's config.json; returns the stage with it.

    Workers, checkpoints and every later command take it from there.

    Raises:
        StorageError: the file cannot be written.
    """
    file = stage.path.parent / "config.json"
    with _ALONE:
        content = strict_json.loads(file.read_bytes())
        (found,) = (entry for entry in content["config"]["stages"] if entry["name"] == stage.name)
        found["model"]["objective"]["residual_scale"] = list(scale)
        write_atomic(str(file), strict_json.dumps(content, indent=1).encode())
        if stage.bucket is not None:
            stage.bucket.push(file)
    return replace(stage, config=override(stage.config, model__objective__residual_scale=scale))
