"""Runs that have first weights alone: enough where it matters what is made of which image, and not how well."""

from pathlib import Path

from pipelines.runs.run_folder import Run, create_run
from pipelines.settings.presets import regression_of, small_stage
from pipelines.settings.train import RunConfig
from sr3core.checkpoint import save_checkpoint, take_snapshot
from sr3core.training import create_state


def untrained_run(folder: Path, low: int, high: int) -> Run:
    """A run of one stage and its regression baseline."""
    stage = small_stage(low, high, base_channels=8, num_steps=10, num_workers=1)
    config = RunConfig(name="tiny", stages=(stage, regression_of(stage)))
    run = create_run(folder, config, str(folder), {stage.name: "x"}, fresh=False)
    for each in run.stages:
        state = create_state(each.config.model, each.config.optimizer, 0)
        save_checkpoint(each.checkpoints, take_snapshot(state), {})
    return run
