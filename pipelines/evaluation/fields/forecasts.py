"""The forecasts that are compared on held-out samples of fields, and what each sample adds to their scores."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipelines.ingest.fields.split import FieldSet
from pipelines.runs.stage_run import StageRun
from pipelines.settings.evaluate import EvaluateConfig
from sr3core.images.resize import upsample_bicubic
from sr3core.metrics.field_terms import angle_terms, coarsening_terms, energy_terms, forecast_terms
from sr3core.randomness import derive_seed
from sr3core.samples.spec import SampleSpec
from sr3core.samples.transforms import SPREAD, to_model, to_physical
from sr3core.upscaling.cascade import upscale
from sr3core.upscaling.stage import Stage

INTERPOLATION, REGRESSION, ENSEMBLE, TRUTH = "interpolation", "regression", "ensemble", "truth"
NUM_BINS = 4096
"""Bins of the histograms of values, over the training range and a quarter of it on both sides."""


@dataclass(frozen=True, slots=True)
class Forecaster:
    """A run's stage of fields, loaded, with what it is compared with."""

    spec: SampleSpec
    stage: Stage
    regression: Stage | None
    """The regression that the chain starts from, or the run's own; None without one."""

    @classmethod
    def load(cls, found: StageRun, baseline: StageRun | None, config: EvaluateConfig, device: str) -> "Forecaster":
        """Load a stage on a device; baseline is the run's regression, used where the stage starts from none."""
        assert found.sample is not None, "the caller has asked whether it makes fields"
        stage = found.load(config.schedule, config.inference, device, few_steps=True)
        regression = None
        if found.mean is not None:
            regression = Stage(REGRESSION, found.mean.model, found.mean.load_fast(config.inference, device), None)
        elif baseline is not None:
            regression = baseline.load(None, config.inference, device)
        return cls(found.sample, stage, regression)

    def make(self, samples: FieldSet, row: int, members: int, seed: int) -> dict[str, Tensor]:
        """Every forecast of a sample, (M, 1, C, H, W) in physical units on the CPU; M is 1 without uncertainty."""
        batch = samples.batch(slice(row, row + 1), (0,)).to(self.stage.device)
        assert batch.low is not None, "fields have inputs"
        x_up = upsample_bicubic(batch.low[:, : len(self.spec.high)], self.stage.model.high_size)
        made = {INTERPOLATION: x_up[None]}
        if self.regression is not None:
            made[REGRESSION] = upscale(self.regression, batch.low, [0], static=batch.static)[None]
        if self.stage.schedule is not None:
            seeds = [derive_seed(seed, "member", samples.keys[row], member) for member in range(members)]
            static = None if batch.static is None else _repeated(batch.static, members)
            made[ENSEMBLE] = upscale(self.stage, _repeated(batch.low, members), seeds, static=static)[:, None]
        return {name: self._physical(tensor) for name, tensor in made.items()}

    def _physical(self, made: Tensor) -> Tensor:
        return torch.from_numpy(to_physical(made.float().cpu().numpy(), self.spec.high))

    def terms(self, samples: FieldSet, row: int, made: Mapping[str, Tensor]) -> dict[str, dict[str, np.ndarray]]:
        """What a sample adds to the scores of each forecast, a row each; those of TRUTH are of the truth itself."""
        record, spec = samples.records[row], self.spec
        known = None if record.valid is None else np.broadcast_to(record.valid, record.high.shape)
        valid = None if known is None else torch.from_numpy(known.copy())[None]
        truth = torch.from_numpy(record.high.astype(np.float32))[None]
        found: dict[str, dict[str, np.ndarray]] = {}
        for name, members in {**made, TRUTH: truth[None]}.items():
            terms = forecast_terms(members, truth, valid)
            terms["energy"] = energy_terms(standardised(members, spec), standardised(truth, spec), valid)
            terms |= self._further(samples, row, members, truth)
            found[name] = {key: value.numpy() for key, value in terms.items()}
            found[name]["histogram"] = _histograms(members[:, 0].numpy(), spec, known)
        return found

    def _further(self, samples: FieldSet, row: int, members: Tensor, truth: Tensor) -> dict[str, Tensor]:
        """The angle between channels of one unit, and the difference from the input after coarsening."""
        found, made = {}, self.spec.high
        if len(made) > 1 and len({channel.units for channel in made}) == 1:
            found["angle"] = angle_terms(members, truth)
        theirs = {channel.name: number for number, channel in enumerate(self.spec.low)}
        shared = [number for number, channel in enumerate(made) if channel.name in theirs]
        if shared and self.stage.model.scale.denominator == 1:
            low = samples.records[row].low[[theirs[made[number].name] for number in shared]]
            gap = coarsening_terms(members[:, :, shared], torch.from_numpy(low.astype(np.float32))[None])
            found["coarsened"] = torch.full((1, len(made)), math.nan, dtype=torch.float64)
            found["coarsened"][:, shared] = gap
        return found


def _repeated(tensor: Tensor, count: int) -> Tensor:
    return tensor.expand(count, *tensor.shape[1:])


def standardised(values: Tensor, spec: SampleSpec) -> Tensor:
    """Physical values, (..., C, H, W), in standard deviations of their channels."""
    flat = values.numpy().reshape(-1, *values.shape[-3:])
    return torch.from_numpy(np.stack([to_model(each, spec.high) for each in flat]) / SPREAD).view(values.shape)


def bin_edges(spec: SampleSpec) -> list[np.ndarray]:
    """Edges of each channel's bins, (NUM_BINS + 1,) each."""
    found = []
    for channel in spec.high:
        lowest = channel.mean - channel.std if channel.minimum is None else channel.minimum
        highest = channel.mean + channel.std if channel.maximum is None else channel.maximum
        margin = (highest - lowest) / 4
        found.append(np.linspace(lowest - margin, highest + margin, NUM_BINS + 1))
    return found


def _histograms(members: np.ndarray, spec: SampleSpec, known: np.ndarray | None) -> np.ndarray:
    """How many values of members, (M, C, H, W), are in each bin of each channel, uint32 (1, C, NUM_BINS)."""
    rows = []
    for number, edges in enumerate(bin_edges(spec)):
        values = members[:, number] if known is None else members[:, number][:, known[number]]
        rows.append(np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0].astype(np.uint32))
    return np.stack(rows)[None]
