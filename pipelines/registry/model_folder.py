"""Exported models: what inference needs of a run, as a folder that model hubs take.

MODEL/README.md                   model card, written last
MODEL/config.json                 the run's configuration; it names no data
MODEL/<stage>/model.safetensors   weights to sample with
MODEL/<stage>/state.json          their sha256, and the step they are from
MODEL/<stage>/schedules/          the searched inference schedules
MODEL/<stage>/mean/               likewise, the regression that the stage's chain starts from, if it starts from one

A model folder is a run without a training: `open_run` opens it, so every command that takes a trained run takes it.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipelines.evaluation.evaluate import EVALUATION
from pipelines.registry.model_card import render_card
from pipelines.runs.run_folder import Run
from pipelines.runs.stage_run import MEAN, StageRun
from pipelines.settings.export import ExportConfig
from pipelines.storage.atomic_writers import put_file
from pipelines.storage.uris import absolute, exists, is_file, join, list_files
from sr3core import strict_json
from sr3core.config import to_dict
from sr3core.errors import ConfigError

CARD, CONFIG = "README.md", "config.json"


def export_model(run: Run, out: str, config: ExportConfig) -> dict[str, int]:
    """Write a run's stages that sample, the cascade and the base model, as a model folder.

    Args:
        run: a trained run.
        out: a new or empty folder, or s3:// prefix.
        config: what to write.

    Returns:
        bytes of each file that was written, by its path in the folder.

    Raises:
        ConfigError: the folder holds something else, or the run has only regression stages.
        CheckpointError: a stage is not trained, or a checkpoint is damaged.
    """
    stages, out = check_export(run, out), absolute(out)
    with tempfile.TemporaryDirectory(prefix="sr3-model-") as folder:
        files = _collect(run, stages, Path(folder), config)
        for path, file in files.items():
            put_file(str(file), join(out, *path.split("/")))
        return {path: file.stat().st_size for path, file in files.items()}


def check_export(run: Run, out: str) -> list[StageRun]:
    """The stages that a model folder would hold.

    Raises:
        ConfigError, CheckpointError: as export_model.
    """
    check_new(out)
    stages = [stage for stage in run.stages if stage.model.kind != "regression"]
    if not stages:
        raise ConfigError(f"{run.location} holds only regression baselines, which are no models of their own")
    for stage in stages:
        stage.check_weights()
    return stages


def check_new(out: str) -> None:
    """Check that nothing is where a model is to be written.

    Raises:
        ConfigError: something is.
    """
    out = absolute(out)
    if exists(out) and any(True for _ in list_files(out)):
        raise ConfigError(f"out: {out} is not empty; choose a new folder")


def _collect(run: Run, stages: Sequence[StageRun], folder: Path, config: ExportConfig) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for stage in stages:
        files |= _collect_stage(stage, folder, config)
    for name, text in ((CONFIG, _configuration(run, stages)), (CARD, _card(run, stages, config))):
        (folder / name).write_text(text, encoding="utf-8")
        files[name] = folder / name
    return files


def _collect_stage(stage: StageRun, folder: Path, config: ExportConfig) -> dict[str, Path]:
    from sr3core.checkpoint import verify
    from sr3core.sampling_checkpoint import export_weights

    files = {f"{stage.name}/schedules/{path.name}": path for path in sorted(stage.schedules.glob("best-*.json"))}
    for place, weights in ((stage.name, stage.weights), (f"{stage.name}/{MEAN}", stage.mean)):
        if weights is not None:
            info = weights.fetch(weights.newest())
            verify(info)
            written = export_weights(info, folder / place, half=config.weights == "float16")
            files |= {f"{place}/{path.name}": path for path in written}
    return files


def _card(run: Run, stages: Sequence[StageRun], config: ExportConfig) -> str:
    """README.md; that of a model which is copied as it is stays, with its credits."""
    own = run.path / CARD
    if own.is_file() and config == ExportConfig():
        return own.read_text(encoding="utf-8")
    return render_card(run, stages, config, _evaluations(run, config))


def _configuration(run: Run, stages: Sequence[StageRun]) -> str:
    """config.json: the run's, without the stages that stay behind and without the data's place."""
    content = strict_json.loads((run.path / CONFIG).read_bytes())
    config = replace(run.config, stages=tuple(stage.config for stage in stages))
    content |= {"config": to_dict(config), "data": "", "data_fingerprints": {}}
    content["provenance"] = {"data_fingerprints": run.data_fingerprints} | content["provenance"]
    return strict_json.dumps(content, indent=1)


def _evaluations(run: Run, config: ExportConfig) -> list[dict[str, Any]]:
    """The measurements for the card."""
    own = run.path / "evaluation.json"
    for path in config.evaluations:
        if not is_file(path):
            raise ConfigError(f"evaluations: {path} is no file; name one that `sr3 evaluate` wrote")
    return [EVALUATION.read(path) for path in (*([own] if own.is_file() else []), *config.evaluations)]
