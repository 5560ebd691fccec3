"""Quality against cost of the ways to find a schedule: defaults, ELBO and GITS by dynamic programming, learned levels,
TPE and CMA-ES.

    python tests/benchmarks/bench_schedules.py --images FOLDER --steps 5 10 --cache FOLDER

The network is the model in the box. Native 64x64 crops of photos that it never saw are shrunk and enlarged again. The
searches judge schedules by 64 images as `sr3 search` does, by KID against crops of other photos; the schedule of every
method is then judged by fresh images and fresh noise. Cost is counted in evaluations of the network for one image
(no other program on the machine changes them), with CPU seconds beside. It runs without Ray; what was measured is kept
in the cache folder, so that a run that was cut short resumes.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pipelines.runs.run_folder import open_run
from pipelines.runs.stage_run import StageRun
from pipelines.settings.locations import PHOTOS_4X
from sr3core import strict_json
from sr3core.config import to_dict
from sr3core.diffusion.schedules import InferenceSchedule
from sr3core.features.extractors import extract_features
from sr3core.hyperparameters import SamplerAlgorithm, SamplerConfig
from sr3core.images.resize import resize_bicubic
from tune.search.objective.evaluator import Evaluator
from tune.search.objective.measurements import Task
from tune.search.objective.task import feature_network
from tune.search.objective.yardstick import estimates_of
from tune.search.proposals.algorithms import create_algorithm
from tune.search.proposals.defaults import defaults
from tune.search.proposals.learned_levels import SOLVERS, learn_levels
from tune.search.proposals.space import SearchSpace, make_schedule
from tune.search.proposals.warm_start import NOISE_FIRST, candidate_levels, probe_of, warm_starts
from tune.search.settings import ObjectiveWeights

SIDE = 64
SEARCHED, REFERENCES = 64, 256


class Counting(torch.nn.Module):
    """A network that counts the images that it is called for."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network, self.images = network, 0
        self.size_multiple = network.size_multiple

    def forward(self, x_up: Tensor | None, y_t: Tensor, *others: Any) -> Tensor:
        self.images += len(y_t)
        return self.network(x_up, y_t, *others)


def crops_of(folder: Path, per_photo: int = 2) -> list[tuple[str, np.ndarray]]:
    """Native crops, (64, 64, 3), with names; those of one photo follow one another."""
    found = []
    for path in sorted(folder.rglob("*.*")):
        try:
            pixels = np.asarray(Image.open(path).convert("RGB"))
        except OSError:
            continue
        generator = np.random.default_rng(len(found))
        for number in range(per_photo if min(pixels.shape[:2]) >= SIDE else 0):
            top, left = (int(generator.integers(0, size - SIDE + 1)) for size in pixels.shape[:2])
            found.append((f"{path.name}-{number}", pixels[top : top + SIDE, left : left + SIDE]))
    return found


def task_of(crops: Sequence[tuple[str, np.ndarray]], references: np.ndarray, purpose: str, cache: Path) -> Task:
    """A task as `sr3 search` makes it, with the model in the box."""
    stage, features = sr3_stage(), feature_network("auto")
    low = np.stack([resize_bicubic(pixels, SIDE // 4) for _, pixels in crops])
    return Task(
        model=stage.config.model,
        network=Counting(stage.weights.load()),  # type: ignore[arg-type]
        mean=None if stage.mean is None else stage.mean.load(),
        feature_network=features,
        keys=tuple(name for name, _ in crops),
        low=low,
        high=np.stack([pixels for _, pixels in crops]),
        references=extract_features(features, references),
        paired=False,
        identity=purpose,
        cache=cache,
        purpose=purpose,
        seed=0,
        rungs=(len(crops),),
        estimates=estimates_of("kid", (len(crops),)),
        weights=ObjectiveWeights(),
        batch_size=32,
    )


class Methods:
    """The ways to find a schedule of some steps on one task."""

    def __init__(self, task: Task, num_steps: int, num_trials: int) -> None:
        self.task, self.num_steps, self.num_trials = task, num_steps, num_trials
        self.training = sr3_stage().config.model.noise_schedule
        self.space = SearchSpace.of(self.training, (num_steps,), ("ancestral", "ddim", "dpmpp_2m", "heun"), ("noise",))
        self.evaluator = Evaluator(task)

    def all(self) -> dict[str, Callable[[], InferenceSchedule]]:
        """Name -> finds its schedule."""
        found: dict[str, Callable[[], InferenceSchedule]] = {
            schedule.name: lambda schedule=schedule: schedule for schedule in defaults(self.training, self.num_steps)
        }
        found |= {name: lambda name=name: self._warm(name) for name in ("elbo", "gits")}
        found |= {f"learned {solver}": lambda solver=solver: self._learned(solver) for solver in SOLVERS}
        found |= {name: lambda name=name: self._searched(name) for name in ("random", "tpe", "cmaes")}
        return found

    def _warm(self, name: Any) -> InferenceSchedule:
        return warm_starts(self.task, name, (self.num_steps,), self.space.smallest_gamma, 2, 0)[0]

    def _learned(self, solver: SamplerAlgorithm) -> InferenceSchedule:
        start = candidate_levels(self.space.smallest_gamma, self.num_steps)
        learned = learn_levels(probe_of(self.task, "cpu"), start, 1 - NOISE_FIRST, solver)
        print(f"{solver}: from {learned.first_loss:.4g} to {learned.loss:.4g}", flush=True)
        sampler = SamplerConfig(algorithm=solver)
        return make_schedule(learned.gammas, sampler, f"learned-{solver}", self.space.smallest_gamma)

    def _searched(self, name: Any) -> InferenceSchedule:
        proposals = create_algorithm(name, self.space, 0, self.num_trials, [], [])
        found: list[tuple[float, InferenceSchedule]] = []
        for number in range(self.num_trials):
            point = proposals.suggest(str(number))
            assert point is not None
            schedule = self.space.schedule(point)
            values = self.evaluator.evaluate(schedule, self.task.rungs[-1])
            known = {**values, "complete": True, "num_images": self.task.rungs[-1]}
            proposals.on_trial_result(str(number), known)
            proposals.on_trial_complete(str(number), known)
            found.append((values["objective"], schedule))
        return min(found, key=lambda each: each[0])[1]


def sr3_stage() -> StageRun:
    """The diffusion stage of the model in the box."""
    return next(stage for stage in open_run(PHOTOS_4X).stages if stage.config.model.kind == "sr3")


def main() -> None:
    """Measure and print a line of JSON for each method and number of steps."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--steps", type=int, nargs="+", default=[5, 10])
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--tested", type=int, default=200)
    options = parser.parse_args()
    crops = crops_of(options.images)
    inputs, others = crops[: 2 * (SEARCHED + options.tested) : 2], crops[2 * (SEARCHED + options.tested) :]
    references = np.stack([pixels for _, pixels in others[: 2 * REFERENCES]])
    search = task_of(inputs[:SEARCHED], references[::2], "search", options.cache)
    fresh = Evaluator(task_of(inputs[SEARCHED:], references[1::2], "confirmation", options.cache))
    for num_steps in options.steps:
        for name, find in Methods(search, num_steps, options.trials).all().items():
            path = options.cache / f"{num_steps}-{name}.json"
            if not path.is_file():
                network: Any = search.network
                network.images, started = 0, time.process_time()
                schedule = find()
                cost = {"evaluations": network.images, "cpu_seconds": round(time.process_time() - started, 1)}
                values = fresh.evaluate(schedule, options.tested)
                about = {"steps": num_steps, "method": name, **cost, **values, "schedule": to_dict(schedule)}
                path.write_text(strict_json.dumps(about))
            print(path.read_text(), flush=True)


if __name__ == "__main__":
    main()
