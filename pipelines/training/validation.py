"""Held-out loss, also by noise level, and PSNR to choose regression's checkpoint (section 4)."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from pipelines.ingest.degraded_inputs import degrade_images
from pipelines.ingest.fields.split import FieldSet, load_fields
from pipelines.ingest.pixel_batch import HostBatch, classes_for
from pipelines.ingest.split_reader import SplitReader, load_split
from pipelines.runs.run_folder import NUM_BUCKETS, StageRun
from pipelines.shards.mixtures import data_names
from pipelines.training.worker_group import Team
from sr3core.batch import Batch
from sr3core.images.pixels import to_float, to_uint8
from sr3core.images.resize import upsample_bicubic
from sr3core.metrics.psnr import psnr
from sr3core.networks.level_variances import level_variances
from sr3core.randomness import derive_seed
from sr3core.regression import regress
from sr3core.sizes import num_pixels
from sr3core.training import Trainer, TrainState
from sr3core.upscaling.tiled_network import for_whole_images


class Validation:
    """Held-out loss (and for regression PSNR) with the averaged weights and the same noise every time."""

    def __init__(self, stage: StageRun, trainer: Trainer, team: Team) -> None:
        self._trainer, self._team = trainer, team
        config, wanted = stage.config, stage.config.num_validation_images
        self._count = min(wanted, SplitReader(stage.data, config.data_stage, "validation").num_samples)
        assert self._count, "data_fingerprints has refused data without any"
        place = (stage.data, config.data_stage, "validation", wanted, team.rank, team.world_size)
        self._mine = load_fields(*place) if stage.sample else degrade_images(load_split(*place), config.degradation)
        self._names = data_names(stage.data)
        self._tiles = max(1, config.batch_size // team.world_size)
        # As many pixels at once as a training batch has, whose memory is there.
        at_once = self._tiles * num_pixels(config.model.unet.image_size)
        self._batch_size = max(1, at_once // num_pixels(config.model.high_size))

    @torch.no_grad()
    def __call__(self, state: TrainState) -> dict[str, float]:
        """Mean loss per image; for regression also PSNR in dB, for others the loss in NUM_BUCKETS equal parts of 1..T.

        loss_bucket_0 is that of the least noisy levels; empty buckets are omitted. Of a mixture, the images are of all
        preparations, by their shares, and loss_on_NAME is the mean over those of one. variance_LEVEL is what reaches a
        level of the network from this worker's last images.
        """
        network = state.ema if state.ema is not None and state.step else state.model
        network.eval()
        forward = for_whole_images(self._trainer.model, network, self._tiles)
        totals = torch.zeros(2 + 2 * NUM_BUCKETS + 2 * len(self._names), dtype=torch.float64)
        with level_variances(network) as variances:
            for start in range(0, len(self._mine.keys), self._batch_size):
                totals += self._sums(forward, slice(start, start + self._batch_size))
        state.model.train()
        totals = self._team.mean(totals) * self._team.world_size
        result = {"loss": float(totals[0]) / self._count}
        result |= {f"variance_{level}": float(variance) for level, variance in variances.items()}
        if len(self._names) > 1:
            on, images = totals[2 + 2 * NUM_BUCKETS :].view(2, -1)
            result |= {f"loss_on_{name}": float(on[i] / images[i]) for i, name in enumerate(self._names) if images[i]}
        if self._trainer.model.kind == "regression":
            return {**result, "psnr": float(totals[1]) / self._count}
        sums, counts = totals[2 : 2 + 2 * NUM_BUCKETS].view(2, NUM_BUCKETS)
        means = {f"loss_bucket_{i}": float(sums[i] / counts[i]) for i in range(NUM_BUCKETS) if counts[i]}
        return {**result, **means}

    def _batch(self, part: slice, positions: tuple[int, ...]) -> HostBatch | Batch:
        if isinstance(self._mine, FieldSet):
            return self._mine.batch(part, positions)
        model = self._trainer.model
        low = None if model.kind == "base" else to_float(self._mine.low[part])
        return Batch(
            low, to_float(self._mine.high[part]), positions, classes=classes_for(model, self._mine.labels[part])
        )

    def _ratio(self, forward: Callable[..., Tensor], batch: Batch, part: slice, losses: Tensor) -> float:
        """Sum of the PSNR of what a regression makes; of fields by the loss, with two units of the network as range."""
        if isinstance(self._mine, FieldSet):
            return float((10 * torch.log10(4 / losses.clamp(min=1e-12))).sum())
        assert batch.low is not None, "regression has an input"
        output = to_uint8(regress(forward, upsample_bicubic(batch.low, self._trainer.model.high_size), 3))
        return float(np.sum(psnr(output, self._mine.high[part])))

    def _sums(self, forward: Callable[..., Tensor], part: slice) -> Tensor:
        """Sums over a part of this worker's images: loss, PSNR; loss and images per bucket, and per preparation."""
        device, model = self._team.device, self._trainer.model
        positions = tuple(range(self._team.rank, self._count, self._team.world_size))[part]
        batch = self._batch(part, positions).to(device)
        losses = self._trainer.losses(forward, batch, 0, derive_seed(self._trainer.seed, "validation"))
        values = losses.values.double().cpu()
        ratio, by_bucket = 0.0, torch.zeros(2, NUM_BUCKETS, dtype=torch.float64)
        if losses.steps is None:
            ratio = self._ratio(forward, batch, part, values)
        else:
            bucket = torch.as_tensor((losses.steps - 1) * NUM_BUCKETS // model.noise_schedule.num_steps)
            by_bucket[0].index_add_(0, bucket, values)
            by_bucket[1].index_add_(0, bucket, torch.ones_like(values))
        owners = torch.tensor(self._mine.parts[part])
        by_data = torch.zeros(2, len(self._names), dtype=torch.float64)
        by_data[0].index_add_(0, owners, values)
        by_data[1].index_add_(0, owners, torch.ones_like(values))
        whole = torch.stack([values.sum(), torch.tensor(ratio).double()])
        return torch.cat([whole, by_bucket.flatten(), by_data.flatten()])
