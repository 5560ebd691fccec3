"""Throughput of the schedule search against the naive way, and of two trials at once against one.

    python tests/benchmarks/bench_search.py --run RUN --stage STAGE

naive: every trial is a process of its own that loads the model and the feature network, computes the reference features
again and judges the schedule by all images. Both ways try the same random schedules, two at a time with one CPU each,
on copies of the run, so that nothing is found in a cache. Speeds are ratios from one run of this script.

Found on two idle cores, a stage of 0.76M parameters from 16 to 64 pixels, 48 trials of 64 images: 6.5 times the naive
way's trials a second at the same winner (4.1 by the rungs, 1.6 by what is shared), 1.6 times those of one trial at a
time, less than was wanted (1.8). Of its 69 s twelve are set-up; of two trials that start together neither has anybody
to be compared with, so one more may run whole; and a whole trial takes 10 to 11 s beside another, 9.4 s alone, as two
workers, Ray's own processes and the memory share two cores.
"""

import argparse
import json
import logging
import os
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import ray

from pipelines.runs.run_folder import open_run
from sr3core.diffusion.schedules import InferenceSchedule
from sr3core.features.extractors import extract_features
from tune.search.objective.evaluator import Evaluator
from tune.search.objective.task import load_task
from tune.search.records.search_report import TrialRecord, best_of
from tune.search.schedule_search import search
from tune.search.settings import SearchConfig


def copy_run(run: Path, stage: str, into: Path) -> Path:
    """The run with one stage's checkpoints, without searches."""
    target = Path(tempfile.mkdtemp(dir=into))
    shutil.copy(run / "config.json", target)
    shutil.copytree(run / stage / "checkpoints", target / stage / "checkpoints")
    return target


@ray.remote(num_cpus=1, max_calls=1)
def judge_naively(run: str, config: SearchConfig, schedule: InferenceSchedule) -> dict[str, float]:
    """One trial of the naive way, in a process that ends with it."""
    import torch

    torch.set_num_threads(1)
    task = load_task(open_run(run).stage(config.stage), config)
    references = extract_features(task.feature_network, task.high)
    fresh = Path(tempfile.mkdtemp())
    return Evaluator(replace(task, references=references, cache=fresh)).evaluate(schedule, config.num_images)


def naive(run: Path, config: SearchConfig, schedules: list[InferenceSchedule]) -> dict[str, float]:
    """Seconds, and the distance of the winner."""
    started = time.perf_counter()
    values = ray.get([judge_naively.remote(str(run), config, schedule) for schedule in schedules])
    distances = [value["distance"] for value in values]
    return {"seconds": time.perf_counter() - started, "best": min(distances), "trials": len(distances)}


def ours(run: Path, config: SearchConfig) -> tuple[dict[str, float], tuple[TrialRecord, ...]]:
    """Seconds of the trials and the shared set-up, and the distance of the winner."""
    started = time.perf_counter()
    trials = search(str(run), config, lambda line: None).report.trials
    best = best_of(trials)
    assert best is not None
    assert best.distance is not None
    return {"seconds": time.perf_counter() - started, "best": best.distance, "trials": len(trials)}, trials


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--stage", required=True)
    parser.add_argument("--trials", type=int, default=48)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--steps", type=int, default=10)
    options = parser.parse_args()
    os.environ.update(RAY_AUTH_MODE="disabled", RAY_USAGE_STATS_ENABLED="0")
    base: dict[str, Any] = {
        "stage": options.stage,
        "num_steps": options.steps,
        "num_trials": options.trials,
        "num_images": options.images,
        "algorithm": "random",
        "warm_starts": (),
        "confirm_split": None,
    }
    whole, halving = SearchConfig(**base), SearchConfig(**base, num_rungs=3, rung_factor=4)
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.WARNING)
    found: dict[str, dict[str, float]] = {}

    def note(name: str, values: dict[str, float]) -> None:
        found[name] = values | {"trials a second": values["trials"] / values["seconds"]}
        print(json.dumps({name: found[name]}), flush=True)  # a run that is cut short has shown something

    with tempfile.TemporaryDirectory() as folder:
        source = (options.run, options.stage, Path(folder))
        note("search", ours(copy_run(*source), halving)[0])
        values, trials = ours(copy_run(*source), whole)
        note("search without rungs", values)
        note("naive", naive(copy_run(*source), whole, [trial.schedule for trial in trials]))
        note("search, one at a time", ours(copy_run(*source), replace(halving, num_concurrent=1))[0])
    # The same schedules, judged alike.
    np.testing.assert_allclose(found["naive"]["best"], found["search without rungs"]["best"], rtol=1e-3)
    for other in ("naive", "search without rungs", "search, one at a time"):
        ratio = found["search"]["trials a second"] / found[other]["trials a second"]
        print(f"search / {other}: {ratio:.2f} times the trials a second")


if __name__ == "__main__":
    main()
