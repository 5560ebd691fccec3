"""Grids of held-out fields during training, in colours: a perceptually uniform map, one range for each column."""

import numpy as np
from torch import Tensor

from pipelines.ingest.fields.split import FieldSet
from sr3core.images.resize import upsample_bicubic
from sr3core.upscaling.cascade import upscale
from sr3core.upscaling.stage import Stage


def field_rows(stage: Stage, samples: FieldSet, seeds: list[int]) -> list[np.ndarray]:
    """Rows of a grid, uint8 (N, H, W, 3) each: inputs, samples and targets of the first channel."""
    batch = samples.batch(slice(0, len(seeds)), tuple(seeds)).to(stage.device)
    assert batch.low is not None, "fields have inputs"
    made = upscale(stage, batch.low, seeds, static=batch.static)
    x_up = upsample_bicubic(batch.low, stage.model.high_size)
    columns = [_coloured([tensor[i, 0] for tensor in (x_up, made, batch.high)]) for i in range(len(seeds))]
    return [np.stack([column[row] for column in columns]) for row in range(3)]


def _coloured(planes: list[Tensor]) -> list[np.ndarray]:
    """Planes, (H, W), in viridis, between the 2nd and the 98th percentile of the last one; uint8 (H, W, 3) each."""
    import matplotlib

    values = [plane.float().cpu().numpy() for plane in planes]
    lowest, highest = np.percentile(values[-1], [2, 98])
    scaled = [np.clip((value - lowest) / max(highest - lowest, 1e-9), 0, 1) for value in values]
    return [np.round(matplotlib.colormaps["viridis"](value)[..., :3] * 255).astype(np.uint8) for value in scaled]
