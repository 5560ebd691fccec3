"""A small run with weights to start another from, written without training."""

from pathlib import Path

import torch

from pipelines.runs.run_folder import Run, create_run
from pipelines.settings.presets import small_stage
from pipelines.settings.train import RunConfig, TrainConfig
from sr3core.checkpoint import save_checkpoint, take_snapshot
from sr3core.config import override
from sr3core.training import create_state


def stage(low: int, high: int, **changes) -> TrainConfig:
    small = small_stage(low, high, base_channels=8, num_steps=2, num_workers=0)
    return override(small, **{"batch_size": 16, "num_validation_images": 4, **changes})


def trained(path: Path, *stages: TrainConfig, step: int = 3) -> Run:
    """A run whose stages have a checkpoint of random weights that are not those of any seed."""
    run = create_run(path, RunConfig(name="parent", stages=stages), "data", {}, fresh=False)
    for found in run.stages:
        state = create_state(found.model, found.config.optimizer, seed=99)
        with torch.no_grad():
            for parameter in (*state.model.parameters(), *(state.ema or state.model).parameters()):
                parameter.add_(0.02)
        state.step = step
        save_checkpoint(found.checkpoints, take_snapshot(state), {"provenance": {"fingerprint": "f"}})
    return run
