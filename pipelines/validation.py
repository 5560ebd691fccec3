"""Held-out loss, and PSNR for the choice of regression's checkpoint (section 4, Training Details)."""

import numpy as np
import torch
from torch import Tensor, nn

from pipelines.ingest import SplitImages, load_split
from pipelines.runs import StageRun
from pipelines.team import Team
from sr3core.errors import DataError
from sr3core.images import to_float, to_uint8
from sr3core.metrics.psnr import psnr
from sr3core.randomness import derive_seed
from sr3core.regression import regress
from sr3core.resize import upsample_bicubic
from sr3core.training import Batch, Trainer, TrainState


class Validation:
    """Held-out loss (and for regression PSNR) with the averaged weights, the same noise every time."""

    def __init__(self, stage: StageRun, trainer: Trainer, team: Team) -> None:
        self._trainer, self._team = trainer, team
        images = load_split(stage.data, stage.config.data_stage, "validation", stage.config.num_validation_images)
        if not images.keys:
            raise DataError(
                f"{stage.data}/{stage.config.data_stage} holds no validation images: prepare more, or with a larger"
                " --validation-fraction"
            )
        self._count = len(images.keys)
        self._mine = _share(images, team.rank, team.world_size)
        self._batch_size = max(1, stage.config.batch_size // team.world_size)

    @torch.no_grad()
    def __call__(self, state: TrainState) -> dict[str, float]:
        """Mean loss an image, and PSNR in dB for regression."""
        network = state.ema.module if state.ema is not None and state.step else state.model
        network.eval()
        totals = torch.zeros(2, dtype=torch.float64)
        for start in range(0, len(self._mine.keys), self._batch_size):
            totals += self._sums(network, slice(start, start + self._batch_size))
        state.model.train()
        totals = self._team.mean(totals) * self._team.world_size / self._count
        result = {"loss": float(totals[0])}
        if self._trainer.model.kind == "regression":
            result["psnr"] = float(totals[1])
        return result

    def _sums(self, network: nn.Module, part: slice) -> Tensor:
        device = self._team.device
        positions = tuple(range(self._team.rank, self._count, self._team.world_size))[part]
        batch = Batch(to_float(self._mine.low[part]), to_float(self._mine.high[part]), positions).to(device)
        seed = derive_seed(self._trainer.seed, "validation")
        loss = self._trainer.losses(network, batch, 0, seed).double().sum()
        ratio = 0.0
        if self._trainer.model.kind == "regression":
            output = to_uint8(regress(network, upsample_bicubic(batch.low, self._trainer.model.high_size)))  # type: ignore[arg-type]
            ratio = float(np.sum(psnr(output, self._mine.high[part])))
        return torch.tensor([float(loss), ratio], dtype=torch.float64)


def _share(images: SplitImages, rank: int, world_size: int) -> SplitImages:
    part = slice(rank, None, world_size)
    return SplitImages(images.keys[part], images.low[part], images.high[part])
