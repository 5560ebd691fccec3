"""Training under Ray Train against plain torchrun, stages side by side against one after the other, and data wait.

    python tests/benchmarks/bench_training.py [--rounds 3] [--steps 200]

torchrun: the demo's stage 24 -> 48 on workers with gloo, a thread each, once with Ray Train's workers
and once with torchrun's: two workers, and one, which leaves a core of two to Ray's own processes, as
machines with GPUs do. Both run train_as_worker of pipelines.training.worker_loop, so step, DDP, ingest, metrics and
checkpoints are the same code; what differs is who started the processes and what else those run. They
take turns; the speed of a run is the median over its intervals of metrics.jsonl, the first one left
out. Wanted: Ray Train at most 3% slower.

stages: the demo's stage 12 -> 24 twice, on one worker each: both side by side, then one after the other. Timed are
calls of train_run on a Ray that runs already, workers' start included; and whole `sr3 train` commands, which start a
Ray each: one that trains both stages against two that train one each. Wanted: at most 0.6 of the time. On two cores it
depends on --stage-steps: Ray's twenty processes that wait take a sixth of a core and their start 14 s of both, which
one stage alone has a free core for.

data wait: share of the steps' time that the workers of the first part waited for data. Wanted: under 2%.

Ratios within one run, medians over the rounds. About half an hour on two idle cores; on busy ones the second part says
nothing, as two stages then share what one would get.
"""

import argparse
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import torch
import torch.distributed as dist

from cluster.session import ray_session
from pipelines.prepare.preparation import prepare
from pipelines.runs.run_folder import Run, create_run, data_fingerprints, open_run, read_metrics
from pipelines.settings.prepare import PrepareConfig
from pipelines.settings.presets import preset
from pipelines.settings.train import RunConfig, TrainConfig
from pipelines.training.parallel_stages import train_run
from pipelines.training.worker_group import Team, set_up_process
from pipelines.training.worker_loop import train_as_worker
from sr3core.config import override, to_dict

ROOT = Path(__file__).resolve().parents[2]
PHOTOS = ROOT / "pipelines" / "demo_photos"
NUM_INTERVALS = 5


def demo_stage(name: str, steps: int) -> TrainConfig:
    """A stage of the demo with its own network, batch and workers; checkpoints and held-out losses at the end alone."""
    (stage,) = (stage for stage in preset("demo").stages if stage.name == name)
    return override(
        stage, num_steps=steps, log_every=steps // NUM_INTERVALS, checkpoint_every=steps, validation_every=steps
    )


def new_run(folder: Path, data: str, *stages: TrainConfig) -> Run:
    """A fresh run of these stages."""
    config = RunConfig(name="bench", stages=stages)
    return create_run(Path(tempfile.mkdtemp(dir=folder)), config, data, data_fingerprints(data, config), fresh=True)


def train(run: Run, *names: str) -> None:
    """train_run, which must succeed."""
    errors = [result.error for result in train_run(run, names)]
    assert not any(errors), errors


def torchrun(run: Run) -> None:
    """Train the run's stage by torchrun's workers: this file's --worker."""
    (stage,) = run.stages
    workers = str(stage.config.placement.num_workers)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", workers, __file__]
    subprocess.run([*command, "--worker", run.location], check=True)


def work(location: str) -> None:
    """What each of torchrun's workers runs."""
    (stage,) = open_run(location).stages
    set_up_process(stage.config)
    dist.init_process_group("gloo")
    team = Team(dist.get_rank(), dist.get_world_size(), torch.device("cpu"))
    train_as_worker(stage, team, lambda values: None)
    dist.destroy_process_group()


def of_intervals(run: Run, name: str) -> float:
    """The median of a number of metrics.jsonl over the intervals after the first."""
    (stage,) = run.stages
    return median([line[name] for line in read_metrics(stage.metrics) if line["kind"] == "train"][1:])


def against_torchrun(folder: Path, data: str, rounds: int, steps: int, num_workers: int) -> None:
    """Print the ratio of step times, and the data wait."""
    ratios, waits = [], []
    stage = override(demo_stage("24-48", steps), placement__num_workers=num_workers)
    for index in range(rounds):
        ours, plain = (new_run(folder, data, stage) for _ in range(2))
        for way in (0, 1) if index % 2 else (1, 0):
            train(ours) if way else torchrun(plain)
        speeds = [of_intervals(run, "images_per_second") for run in (ours, plain)]
        ratios.append(speeds[1] / speeds[0])
        waits.append(of_intervals(ours, "data_wait"))
        print(json.dumps({"images/s under Ray Train": speeds[0], "under torchrun": speeds[1]}), flush=True)
    found = {"step under Ray Train / under torchrun": median(ratios), "data wait": median(waits)}
    print(json.dumps({"workers": num_workers, **found}), flush=True)


def side_by_side(folder: Path, data: str, rounds: int, steps: int) -> None:
    """Print the ratio of times of two stages at once to one after the other, on a Ray that runs already."""
    one, other = (override(demo_stage("12-24", steps), name=name) for name in ("one", "other"))
    ratios = []
    for index in range(rounds):
        together, apart = (new_run(folder, data, one, other) for _ in range(2))
        times = {}
        for way in ("together", "apart") if index % 2 else ("apart", "together"):
            started = time.perf_counter()
            if way == "together":
                train(together)
            else:
                train(apart, "one")
                train(apart, "other")
            times[way] = time.perf_counter() - started
        ratios.append(times["together"] / times["apart"])
        print(json.dumps({"seconds": times}), flush=True)
    print(json.dumps({"two stages side by side / one after the other": median(ratios)}), flush=True)


def side_by_side_with_start(folder: Path, data: str, steps: int) -> None:
    """The same by whole commands, once: `sr3 train` of both stages against one command for each."""
    stages = [override(demo_stage("12-24", steps), name=name) for name in ("one", "other")]
    times = []
    for number, parts in enumerate(([stages], [[stage] for stage in stages])):
        started = time.perf_counter()
        for part in parts:
            out = folder / f"command-{number}-{part[0].name}"
            config = folder / "run.json"
            config.write_text(json.dumps(to_dict(RunConfig(name="bench", stages=tuple(part)))))
            command = [sys.executable, "-m", "cluster", "train", "--config", config, "--data", data, "--out", out]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - started)
    print(json.dumps({"one command for both / a command each": times[0] / times[1], "seconds": times}), flush=True)


def main() -> None:
    """Prepare, measure, print a JSON line a comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=200, help=f"of each run; a multiple of {NUM_INTERVALS}")
    parser.add_argument("--stage-steps", type=int, default=500, help="of each stage side by side; the demo's own")
    parser.add_argument("--parts", nargs="+", default=["torchrun", "stages"], choices=["torchrun", "stages"])
    parser.add_argument("--worker", help=argparse.SUPPRESS)  # what torchrun is given
    options = parser.parse_args()
    if options.worker:
        work(options.worker)
        return
    os.environ["PYTHONPATH"] = str(ROOT)
    os.environ["RAY_AUTH_MODE"] = "disabled"
    logging.basicConfig(level=logging.WARNING)
    with tempfile.TemporaryDirectory() as name:
        folder, data = Path(name), f"{name}/data"
        with ray_session("local"):
            prepare(PrepareConfig(source=str(PHOTOS), out=data, stages=("12-24", "24-48"), validation_fraction=0.1))
            if "torchrun" in options.parts:
                for num_workers in (2, 1):
                    against_torchrun(folder, data, options.rounds, options.steps, num_workers)
            if "stages" in options.parts:
                side_by_side(folder, data, options.rounds, options.stage_steps)
        if "stages" in options.parts:
            side_by_side_with_start(folder, data, options.stage_steps)


if __name__ == "__main__":
    main()
