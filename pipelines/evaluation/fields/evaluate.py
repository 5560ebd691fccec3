"""`sr3 evaluate` for runs of fields: ensembles of held-out samples, and their scores in RUN/field-evaluation.json.

RUN/samples/fields/ keeps what each sample adds to the scores, so that an interrupted evaluation goes on where it was,
and the fields of the first samples, which the report shows.
"""

import shutil
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.evaluation.fields.forecasts import ENSEMBLE, INTERPOLATION, REGRESSION, Forecaster
from pipelines.evaluation.fields.scores import PROBABILITIES, Scores
from pipelines.ingest.fields.split import FieldSet, load_fields
from pipelines.ingest.split_reader import SplitReader
from pipelines.runs.run_data import require_data
from pipelines.runs.run_folder import Run, open_run, write_atomic
from pipelines.runs.stage_run import StageRun
from pipelines.runtime.actor_pool import run_on_actors
from pipelines.runtime.actor_resources import find_actor_resources
from pipelines.runtime.progress_display import Counted, print_progress
from pipelines.runtime.provenance import provenance
from pipelines.sampling.held_out import check_files_reach_all
from pipelines.settings.evaluate import EvaluateConfig
from pipelines.storage.leases.folder_lease import working_in
from pipelines.storage.local_files import replacing
from pipelines.storage.versioned_json import JsonFormat, read_object
from sr3core import strict_json
from sr3core.config import fingerprint_of, from_dict, scientific, to_dict
from sr3core.errors import ConfigError, DataError

NUM_SHOWN = 4
"""Samples whose fields are kept for the report."""
NUM_MEMBERS_SHOWN = 2
FORMAT = JsonFormat(
    title="evaluation of fields",
    version=1,
    name="sr3-field-evaluation",
    if_damaged="delete it and run `sr3 evaluate` again",
    if_other_version="delete it and run `sr3 evaluate` again",
)
FILE = "field-evaluation.json"


def stage_of_fields(run: Run) -> tuple[StageRun, StageRun | None]:
    """The stage that a run of fields is measured by, and its regression.

    Raises:
        ConfigError: it has several, of which there are no cascades.
    """
    stages, regressions = run.cascade(), run.regressions()
    if len(stages or regressions) != 1:
        raise ConfigError(f"run: {run.location} has {len(stages)} stages of fields, and one can be measured at a time")
    (stage,) = stages or regressions
    baseline = next((other for other in regressions if other.config.data_stage == stage.config.data_stage), None)
    return stage, None if baseline is stage else baseline


def evaluate_fields(location: str, config: EvaluateConfig) -> dict[str, Any]:
    """Make ensembles of held-out samples and score them, on Ray actors where Ray runs.

    Args:
        location: the run.
        config: which samples, how many members, by which schedule.

    Returns:
        The content of RUN/field-evaluation.json.

    Raises:
        CheckpointError: a stage has no checkpoint, or one of another network.
        DataError: the data are missing, or the split is empty.
        StorageError: another process evaluates the run.
    """
    with working_in(location, "evaluating"):
        run = open_run(location)
        stage, _ = stage_of_fields(run)
        require_data(run, stage.config.data_stage, config.split, fields=True)
        stage.check_weights()
        folder = run.path / "samples" / "fields"
        identity = _identity(stage, config)
        _draw(run, stage, config, folder, identity)
        result = _scored(stage, config, folder, identity)
        write_atomic(run.path / FILE, FORMAT.encode(result).decode())
        run.publish()
        return {**FORMAT.header, **result}


def _num_samples(stage: StageRun, split: str, limit: int | None) -> int:
    found = SplitReader(stage.data, stage.config.data_stage, split).num_samples
    return found if limit is None else min(found, limit)


def _identity(stage: StageRun, config: EvaluateConfig) -> str:
    schedule = stage.schedule(config.schedule, few_steps=True)
    weights = [found.fingerprint() for found in (stage.weights, stage.mean) if found is not None]
    how = [config.split, config.seed, config.num_members, *config.inference.decides]
    return fingerprint_of([weights, scientific(schedule), how, stage.config.data_stage])


def _draw(run: Run, stage: StageRun, config: EvaluateConfig, folder: Path, identity: str) -> None:
    """Make the terms that are missing; those of other weights or settings are deleted first."""
    marker = folder / "identity.json"
    if read_object(marker).get("identity") != identity:
        shutil.rmtree(folder, ignore_errors=True)
        write_atomic(marker, strict_json.dumps({"identity": identity}))
    rows = range(_num_samples(stage, config.split, config.limit))
    missing = [row for row in rows if not _path(folder, row).is_file()]
    if not missing:
        return
    progress, display = Counted("samples", len(missing), "held-out samples"), print_progress()
    display(progress)
    for _ in _worked(run, stage, config, folder, missing):
        progress.done += 1
        display(progress)


def _worked(run: Run, stage: StageRun, config: EvaluateConfig, folder: Path, missing: list[int]) -> Iterator[object]:
    """Make these samples, on Ray actors where Ray runs."""
    ray: Any = sys.modules.get("ray")
    place = run.location, stage.name, to_dict(config), str(folder)
    if ray is None or not ray.is_initialized():
        yield from map(FieldDrawer(*place, "cpu").work, missing)
        return
    check_files_reach_all(run.bucket)
    found = find_actor_resources(config.num_actors, config.inference.gpus, run.trained_on_gpus)
    actor = ray.remote(FieldDrawer).options(num_cpus=found.cpus, num_gpus=found.gpus)
    make = partial(actor.remote, *place, found.device, found.cpus)
    for row, error in run_on_actors(make, missing, found.num_actors):
        if isinstance(error, Exception):
            raise DataError(f"{folder}: the process that made sample {row} died twice") from error
        yield row


def _path(folder: Path, row: int) -> Path:
    return folder / f"{row:06d}.npz"


class FieldDrawer:
    """An actor that makes the forecasts of held-out samples, one by one, and stores what they add to the scores."""

    def __init__(
        self, location: str, stage: str, config: dict[str, Any], folder: str, device: str, threads: int = 0
    ) -> None:
        import torch

        if threads:
            torch.set_num_threads(threads)
        run = open_run(location)
        self._stage, self._config, self._folder = run.stage(stage), from_dict(EvaluateConfig, config), Path(folder)
        self._forecaster = Forecaster.load(self._stage, stage_of_fields(run)[1], self._config, device)

    def work(self, row: int) -> None:
        """Write the terms of a sample, and of the first few also their fields."""
        samples = one_sample(self._stage, self._config.split, row)
        made = self._forecaster.make(samples, 0, self._config.num_members, self._config.seed)
        terms = self._forecaster.terms(samples, 0, made)
        flat = {f"{name}/{key}": values for name, found in terms.items() for key, values in found.items()}
        record = samples.records[0]
        flat |= {"group": np.array(str(record.meta.get("block", record.meta.get("name", record.key))))}
        if row < NUM_SHOWN:
            flat |= _shown(samples, {name: members.numpy()[:, 0] for name, members in made.items()})
        with replacing(_path(self._folder, row)) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **flat)  # pyright: ignore[reportArgumentType]


def one_sample(stage: StageRun, split: str, row: int) -> FieldSet:
    """A sample of a split by its number."""
    return load_fields(stage.data, stage.config.data_stage, split, limit=row + 1, rank=row, world_size=row + 1)


def _shown(samples: FieldSet, made: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What the report shows of a sample, (C, H, W) each."""
    record = samples.records[0]
    found = {"shown/input": record.low, "shown/truth": record.high.astype(np.float32)}
    if record.valid is not None:
        found["shown/valid"] = np.broadcast_to(record.valid, record.high.shape)
    found |= {f"shown/{name}": made[name][0] for name in (INTERPOLATION, REGRESSION) if name in made}
    if ENSEMBLE in made:
        members = made[ENSEMBLE]
        found |= {"shown/mean": members.mean(0), "shown/spread": members.std(0, ddof=1)}
        found |= {f"shown/member-{number}": members[number] for number in range(min(NUM_MEMBERS_SHOWN, len(members)))}
    return found


def _stored(folder: Path, count: int) -> Iterator[dict[str, np.ndarray]]:
    for row in range(count):
        with np.load(_path(folder, row), allow_pickle=False) as found:
            yield {name: found[name] for name in found.files if not name.startswith("shown/")}


def _scored(stage: StageRun, config: EvaluateConfig, folder: Path, identity: str) -> dict[str, Any]:
    assert stage.sample is not None, "require_data has found fields"
    count = _num_samples(stage, config.split, config.limit)
    stored = list(_stored(folder, count))
    groups = [str(found.pop("group")) for found in stored]
    terms: dict[str, dict[str, np.ndarray]] = {}
    for name in stored[0]:
        forecast, term = name.split("/")
        terms.setdefault(forecast, {})[term] = np.concatenate([found[name] for found in stored])
    scores = Scores(terms, groups, stage.sample)
    schedule = stage.schedule(config.schedule, few_steps=True)
    return {
        "stage": stage.name,
        "split": config.split,
        "num_images": count,
        "num_groups": scores.num_groups,
        "num_members": config.num_members,
        "channels": [{"name": channel.name, "units": channel.units} for channel in stage.sample.high],
        "schedule": None if schedule is None else {"name": schedule.name, "num_steps": schedule.num_steps},
        "methods": scores.methods(),
        "differences": scores.differences(),
        "ranks": scores.ranks(),
        "spectra": scores.spectra(),
        "probabilities": list(PROBABILITIES),
        "quantiles": scores.quantiles(),
        "identity": identity,
        "provenance": provenance(config, {"checkpoint": stage.weights.fingerprint()}),
    }


def describe(evaluation: dict[str, Any]) -> Iterator[str]:
    """What the scores say, in sentences."""
    if evaluation["num_groups"] < 5:
        yield f"{evaluation['num_groups']} independent groups of samples are too few for intervals"
    gaps = evaluation["differences"].get(REGRESSION) or evaluation["differences"].get(INTERPOLATION) or {}
    other = REGRESSION if REGRESSION in evaluation["differences"] else INTERPOLATION
    for channel in evaluation["channels"]:
        gap = gaps.get(channel["name"], {}).get("crps")
        if gap is None:
            continue
        sure = "" if "low" not in gap or gap["low"] > 0 or gap["high"] < 0 else ", which may be chance"
        word = "lower" if gap["mean"] > 0 else "higher"
        ours = evaluation["methods"][ENSEMBLE][channel["name"]]
        text = f"{channel['name']}: the ensemble's CRPS is {abs(gap['mean']):.3g} {channel['units']} {word} than the"
        yield f"{text} {other}'s{sure}; spread-skill {ours['spread_skill']['mean']:.2f}, of which 1 is right"
