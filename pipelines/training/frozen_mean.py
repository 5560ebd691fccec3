"""The regression that a stage's chain starts from (objective.residual): copied when the stage's training begins.

RUN/STAGE/mean/ is written once. So training the regression further changes no stage that was trained on top of it, and
a stage can be moved, published and exported on its own.
"""

import logging
import shutil
from collections.abc import Sequence

from pipelines.runs.stage_run import MEAN, StageRun
from pipelines.settings.train import is_mean_of
from sr3core.checkpoint import is_checkpoint, verify
from sr3core.sampling_checkpoint import export_weights

log = logging.getLogger(__name__)


def baseline_of(stage: StageRun, stages: Sequence[StageRun]) -> StageRun | None:
    """The regression baseline among a run's stages that a stage starts from; None if it starts from none."""
    return next((other for other in stages if is_mean_of(other.config, stage.config)), None)


def freeze_mean(stage: StageRun, baseline: StageRun) -> None:
    """Copy the baseline's best weights into the stage's folder, unless they are there.

    Raises:
        CheckpointError: the baseline is not trained, or its checkpoint is damaged.
    """
    folder = stage.path / MEAN
    if is_checkpoint(folder):
        return
    info = baseline.weights.fetch(baseline.weights.newest())
    verify(info)
    shutil.rmtree(folder, ignore_errors=True)
    written = export_weights(info, folder, half=False)
    if stage.bucket is not None:
        stage.bucket.push(*written)
    log.info("%s: starts from %s as of step %d", stage.name, baseline.name, info.step)
