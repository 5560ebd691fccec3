"""Grids of held-out samples during training.

On CPUs Ray tasks draw them from checkpoints, so that no training step waits. A CPU would need hours for a network that
trains on GPUs; there worker 0 draws them between two steps, for which the others wait: 25 steps of six images.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.images.compact_png import encode_compact_png
from pipelines.runs.run_folder import StageRun, open_run
from pipelines.storage.uris import write_atomic
from sr3core.checkpoint import list_checkpoints
from sr3core.errors import Sr3Error

if TYPE_CHECKING:
    from sr3core.networks.network import Network
    from sr3core.training import TrainState

NUM_IMAGES = 6
NUM_STEPS = 25
SEED = 0
"""Seed for the noise, the same in every grid: only the network changes from grid to grid."""

log = logging.getLogger(__name__)


class SampleGrids:
    """Starts a task for each checkpoint that is due a grid and has none."""

    def __init__(self, stages: Sequence[StageRun]) -> None:
        self._stages = [
            stage for stage in stages if stage.config.sample_every is not None and not stage.config.placement.use_gpu
        ]
        self._tasks: dict[Path, Any] = {}

    def look(self) -> None:
        """Start the tasks that are due."""
        import ray

        for stage in self._stages:
            for info in list_checkpoints(stage.checkpoints):
                path = grid_path(stage.path, info.step)
                every = stage.config.sample_every or info.step + 1
                if info.step % every == 0 and path not in self._tasks and not path.exists():
                    # No CPU is reserved: the task would wait for the training that it shows.
                    task: Any = ray.remote(num_cpus=0, max_retries=1)(draw_grid)
                    self._tasks[path] = task.remote(stage.location, stage.name, info.step)

    def finish(self, timeout_seconds: float = 300.0) -> None:
        """Draw the remaining grids; one that fails is logged and fails nothing else."""
        import ray
        from ray.exceptions import RayError

        self.look()
        for path, task in self._tasks.items():
            try:
                ray.get(task, timeout=timeout_seconds)
            except (RayError, TimeoutError) as error:
                _log_failure(path, error)


def grid_path(folder: Path, step: int) -> Path:
    """Path of the grid of a step in a stage's folder."""
    return folder / "samples" / f"step-{step:08d}.png"


def draw_grid(run: str, stage_name: str, step: int) -> None:
    """Draw the grid of a checkpoint, with its averaged weights, on one thread of this machine."""
    import os

    import torch

    from sr3core.checkpoint import read_info, sampling_weights
    from sr3core.networks.unet import UNet
    from sr3core.networks.unet_weights import load_weights

    os.nice(10)  # after the training
    torch.set_num_threads(1)
    stage = open_run(run).stage(stage_name)
    network = UNet(stage.model.unet)
    info = stage.weights.fetch(read_info(stage.checkpoints / f"step-{step:08d}"))
    load_weights(network, sampling_weights(info))
    write_grid(stage, network, step)


def draw_grid_between_steps(stage: StageRun, state: "TrainState") -> None:
    """Draw the grid of a training's state on its device; a failure is logged and ends nothing."""
    network = state.ema if state.ema is not None else state.model
    try:
        write_grid(stage, network, state.step)
    except (RuntimeError, Sr3Error) as error:  # such as too little memory beside the training's
        _log_failure(grid_path(stage.path, state.step), error)
    finally:
        state.model.train()


def write_grid(stage: StageRun, network: "Network", step: int) -> None:
    """Sample held-out images: a row each of inputs, samples and originals.

    A base model has no inputs; its samples are of the originals' classes.

    Args:
        stage: whose folder receives the grid.
        network: with the weights to sample with, on any device.
        step: that they are of.
    """
    import torch

    from pipelines.ingest.degraded_inputs import degrade_images
    from pipelines.ingest.fields.split import FieldSet, load_fields
    from pipelines.ingest.split_reader import load_split
    from pipelines.training.field_grid import field_rows
    from sr3core.diffusion.schedules import default_sampler, default_schedule
    from sr3core.images.pixels import to_float, to_uint8
    from sr3core.images.resize import upsample_bicubic
    from sr3core.upscaling.cascade import draw, upscale
    from sr3core.upscaling.stage import Stage

    model = stage.model
    device = next(network.parameters()).device
    load = load_split if stage.sample is None else load_fields
    images = load(stage.data, stage.config.data_stage, "validation", NUM_IMAGES)
    sampler = default_sampler(model)
    schedule = None if model.kind == "regression" else default_schedule(model.noise_schedule, NUM_STEPS, sampler)
    ready = Stage(stage.name, model, network.eval(), schedule, stage.load_mean(device=str(device)))
    seeds = [SEED + i for i in range(len(images.keys))]
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, stage.config.precision == "bfloat16"):
        if isinstance(images, FieldSet):
            _write(stage, step, field_rows(ready, images, seeds))
            return
        images = degrade_images(images, stage.config.degradation)
        if model.kind == "base":
            classes = None if model.unet.num_classes is None else [label or 0 for label in images.labels]
            rows = [to_uint8(draw(ready, seeds, classes).cpu()), images.high]
        else:
            low = to_float(images.low).to(device)
            x_up = upsample_bicubic(low, model.high_size).clamp(-1, 1)
            rows = [to_uint8(x_up.cpu()), to_uint8(upscale(ready, low, seeds).cpu()), images.high]
    _write(stage, step, rows)


def _write(stage: StageRun, step: int, rows: "Sequence[np.ndarray]") -> None:
    grid = np.concatenate([np.concatenate(list(row), axis=1) for row in rows])
    path = grid_path(stage.path, step)
    write_atomic(str(path), encode_compact_png(grid))
    if stage.bucket is not None:
        stage.bucket.push(path)


def _log_failure(path: Path, error: Exception) -> None:
    log.warning("%s was not drawn: %s", path, str(error).strip().splitlines()[-1])
