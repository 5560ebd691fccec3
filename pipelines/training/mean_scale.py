"""The scale of what a stage's frozen regression leaves: measured once, before the stage's first step.

In units of what bicubic upsampling leaves, the chain would draw values far smaller than those that noise schedules are
made for, and its ensembles would spread too much.
"""

import logging
import sys
from typing import TYPE_CHECKING, Any

from pipelines.runs.noted_scales import note_scale
from pipelines.runs.residual_scales import NUM_IMAGES, measure
from pipelines.runs.run_folder import open_run
from pipelines.runs.stage_run import StageRun
from pipelines.training.resources import resources_per_worker
from sr3core.regression import condition
from sr3core.sizes import num_pixels
from sr3core.upscaling.tiled_network import for_whole_images

if TYPE_CHECKING:
    from torch import Tensor

NUM_VALUES = 2**24
"""Cells a channel to measure on at most: 1,024 samples of 128x128, and at least FEWEST of larger ones."""
FEWEST = 64
OVERFITTED = 1.1
"""Ratio of held-out to training residuals above which the regression knows its training samples by heart."""
log = logging.getLogger(__name__)


def fix_scale(stage: StageRun) -> StageRun:
    """Measure what the frozen regression leaves of the training samples, unless the run has a scale; note it there.

    Where Ray runs, a task with the resources of one of the stage's workers measures.

    Args:
        stage: whose regression is frozen.

    Raises:
        DataError: the samples are missing or damaged, or the regression leaves nothing.
    """
    if stage.model.objective.residual_scale:
        return stage
    scale, held_out = _measured(stage)
    if (remark := remark_on(scale, held_out)) is not None:
        log.warning("%s: %s", stage.name, remark)
    log.info("%s: what its regression leaves has the standard deviations %s", stage.name, scale)
    return note_scale(stage, scale)


def remark_on(scale: tuple[float, ...], held_out: tuple[float, ...]) -> str | None:
    """What to say if a regression leaves much more of held-out samples, a channel, than of training samples."""
    ratio = max(theirs / ours for ours, theirs in zip(scale, held_out, strict=True))
    if ratio <= OVERFITTED:
        return None
    return (
        f"its regression leaves {ratio:.2f} times as much of held-out samples as of training samples, so ensembles"
        " will spread too little; train the regression for fewer steps, or prepare more samples"
    )


def _measured(stage: StageRun) -> tuple[tuple[float, ...], tuple[float, ...]]:
    ray: Any = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return scales(stage, "cpu")
    wanted = resources_per_worker(stage.config.placement)
    cpus, gpus = wanted.pop("CPU"), wanted.pop("GPU", 0)
    task = ray.remote(num_cpus=cpus, num_gpus=gpus, resources=wanted)(_scales_of)
    try:
        return ray.get(task.remote(stage.location, stage.name, "cuda" if gpus else "cpu"))
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error


def _scales_of(run: str, stage: str, device: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return scales(open_run(run, results=False).stage(stage), device)


def scales(stage: StageRun, device: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Standard deviation a channel of what the frozen regression leaves: of training and of held-out samples."""
    model, frozen = stage.model, stage.load_mean(device=device)
    assert frozen is not None, "only stages that start from a regression are measured"
    mean = for_whole_images(model, frozen)

    def start(x_up: "Tensor") -> "Tensor":
        return condition(model, x_up.to(device), mean).cpu()

    count = min(NUM_IMAGES, max(FEWEST, NUM_VALUES // num_pixels(model.high_size)))
    place = (stage.data, stage.config.data_stage, stage.config.degradation)
    return measure(*place, count, start), measure(*place, -(-count // 4), start, "validation")
