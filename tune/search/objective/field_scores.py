"""Judging schedules on fields: proper scores of ensembles, in standard deviations of the channels."""

import time

import numpy as np
import torch

from pipelines.evaluation.fields.forecasts import standardised
from pipelines.ingest.fields.split import FieldSet, load_fields
from pipelines.runs.run_folder import StageRun
from pipelines.settings.stages import stage_name
from sr3core.config import fingerprint_of
from sr3core.diffusion.schedules import InferenceSchedule
from sr3core.features.extractors import SeededFeatures
from sr3core.metrics.field_terms import energy_terms, forecast_terms
from sr3core.networks.network import Network
from sr3core.randomness import derive_seed
from sr3core.samples.transforms import to_physical
from sr3core.upscaling.cascade import upscale
from sr3core.upscaling.stage import Stage
from tune.search.objective.measurements import FieldInputs, Measurements, Task
from tune.search.objective.yardstick import estimates_of, score_label
from tune.search.settings import SearchConfig


def load_field_task(stage: StageRun, config: SearchConfig, confirm: bool) -> Task:
    """Load what all trials of a stage of fields share; arguments and errors are those of load_task."""
    split = config.confirm_split if confirm else config.split
    assert split is not None, "the caller confirms only where there is a split for it"
    samples = load_fields(stage.data, stage.config.data_stage, split, config.num_images)
    purpose = "confirmation" if confirm else "search"
    rungs = (len(samples.keys),) if confirm else config.rungs
    content = [stage.weights.fingerprint(), samples.keys, split, purpose, config.seed, config.members]
    names = [str(record.meta.get("block", record.meta.get("name", record.key))) for record in samples.records]
    groups = np.unique(np.array(names), return_inverse=True)[1]
    features = SeededFeatures()  # not used: scores take the place of features
    return Task(
        model=stage.config.model,
        network=stage.weights.load(),
        mean=None if stage.mean is None else stage.mean.load(),
        feature_network=features,
        keys=samples.keys,
        low=np.zeros((0, 1, 1, 3), np.uint8),
        high=np.zeros((0, 1, 1, 3), np.uint8),
        references=np.zeros((0, features.dim)),
        paired=True,
        identity=fingerprint_of(content),
        cache=stage.path / "search" / "measured",
        purpose=purpose,
        seed=config.seed,
        rungs=rungs,
        estimates=estimates_of(config.objective, rungs),
        weights=config.weights,
        batch_size=config.batch_size,
        fields=FieldInputs(samples, groups, config.members, score_label(config.objective, config.members)),
    )


def measure_fields(
    task: Task, network: Network, mean: Network | None, schedule: InferenceSchedule, batch: range, device: str
) -> Measurements:
    """Make ensembles of some samples with a schedule and score them."""
    inputs = task.fields
    assert inputs is not None, "the caller has asked"
    part, spec = slice(batch.start, batch.stop), inputs.samples.spec
    stage = Stage(stage_name(task.model.low_size, task.model.high_size), task.model, network, schedule, mean)
    host = inputs.samples.batch(part, tuple(batch)).to(device)
    assert host.low is not None, "fields have inputs"
    started, members = time.perf_counter(), []
    for member in range(inputs.members):
        seeds = [derive_seed(task.seed, task.purpose, key, member) for key in task.keys[part]]
        made = upscale(stage, host.low, seeds, static=host.static).float().cpu().numpy()
        members.append(torch.from_numpy(to_physical(made, spec.high)))
    seconds = (time.perf_counter() - started) / len(batch)
    scores = _scores(torch.stack(members), inputs.samples, part)
    nothing = np.full(len(batch), np.nan)
    return Measurements(scores, nothing, nothing, nothing, np.full(len(batch), seconds))


def _scores(members: torch.Tensor, samples: FieldSet, part: slice) -> np.ndarray:
    """FIELD_COLUMNS of each sample, (n, 2): the CRPS is the mean over channels; NaN where a member is not finite."""
    records, spec = samples.records[part], samples.spec
    truth = torch.from_numpy(np.stack([record.high.astype(np.float32) for record in records]))
    valid = None
    if spec.has_mask:
        known = [np.broadcast_to(True if r.valid is None else r.valid, r.high.shape) for r in records]
        valid = torch.from_numpy(np.stack(known))
    ours, theirs = standardised(members, spec), standardised(truth, spec)
    terms = forecast_terms(ours, theirs, valid)
    crps = (terms["crps"] / terms["count"].clamp(min=1)).mean(1)
    found = torch.stack([crps, energy_terms(ours, theirs, valid)[:, 0]], dim=1).numpy().astype(np.float32)
    found[~members.isfinite().flatten(2).all(2).all(0).numpy()] = np.nan
    return found
