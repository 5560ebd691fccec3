"""metrics.jsonl: a stage's losses and speeds, one JSON object per line."""

import resource
import time
from typing import Any

import torch
from torch import Tensor

from pipelines.runs.run_folder import StageRun, read_metrics, write_atomic
from pipelines.runtime.exported_metrics import Exporter
from pipelines.settings.train import TrainConfig
from pipelines.training.trackers import open_trackers
from pipelines.training.worker_group import Team
from pipelines.training.workers.stragglers import OwnTimes
from sr3core import strict_json
from sr3core.networks.flops import TRAINING_FACTOR, forward_flops, peak_flops
from sr3core.training import StepStatistics


class MetricsLog:
    """metrics.jsonl, written by worker 0; resuming drops the lines of steps that will be repeated."""

    def __init__(self, stage: StageRun, resume_step: int, team: Team, exporter: Exporter | None = None) -> None:
        self._exporter = exporter or Exporter({})
        self._path, self._team, self._config = stage.metrics, team, stage.config
        self.times = OwnTimes(team, stage.name)
        self._sinks = open_trackers(stage, resume_step) if team.rank == 0 else []
        self._peak_flops = peak_flops(team.device, stage.config.precision)
        self._step_flops = 0.0 if self._peak_flops is None else _step_flops(stage.config)
        self._losses: list[Tensor] = []
        self._norms: list[Tensor] = []
        self._since = self._start = time.perf_counter()
        self._seconds_before = 0.0
        if team.rank == 0:
            kept = [line for line in read_metrics(self._path) if line["step"] <= resume_step] if resume_step else []
            self._seconds_before = kept[-1]["seconds"] if kept else 0.0
            write_atomic(self._path, "".join(strict_json.dumps(line) + "\n" for line in kept))

    def add(self, statistics: StepStatistics) -> None:
        """Record a step's statistics without reading them, which would wait for the device."""
        self._losses.append(statistics.loss)
        self._norms.append(statistics.gradient_norm)

    def interval(self) -> dict[str, float | int]:
        """Means and speeds since the last call, over all workers; mfu where the device's peak FLOP/s are known.

        data_wait is the largest fraction of the time that a worker waited for data.
        """
        now = time.perf_counter()
        means = self._team.mean(torch.stack([torch.stack(self._losses).mean(), torch.stack(self._norms).mean()]))
        steps, seconds = len(self._losses), now - self._since
        result: dict[str, float | int] = {
            "loss": float(means[0]),
            "gradient_norm": float(means[1]),
            "images_per_second": steps * self._config.batch_size / seconds,
            "data_wait": self.times.compare(steps, seconds),
            "memory_bytes": _peak_memory(self._team.device),
            "world_size": self._team.world_size,
        }
        if self._peak_flops is not None:
            result["mfu"] = steps * self._step_flops / seconds / (self._peak_flops * self._team.world_size)
        self._export(result, steps, seconds)
        self._losses, self._norms, self._since = [], [], now
        return result

    def _export(self, interval: dict[str, float | int], steps: int, seconds: float) -> None:
        """Every worker tells its own times and memory, worker 0 what they have in common."""
        waited, own = self.times.a_step
        told = {"own_step_seconds": own, "data_wait_ratio": waited * steps / seconds}
        told["memory_bytes"] = interval["memory_bytes"]
        if self._team.rank == 0:
            told |= {name: interval[name] for name in ("loss", "gradient_norm", "images_per_second")}
            told |= {"step_seconds": seconds / steps}
            told |= {"mfu_ratio": interval["mfu"]} if "mfu" in interval else {}
        self._exporter.set(**{f"train_{name}": value for name, value in told.items()})

    def write(self, line: dict[str, Any]) -> None:
        """Append a line with the training time so far and the wall-clock time; worker 0 alone writes."""
        if self._team.rank != 0:
            return
        seconds = self._seconds_before + time.perf_counter() - self._start
        with self._path.open("a", encoding="utf-8") as file:
            file.write(strict_json.dumps({**line, "seconds": round(seconds, 3), "written": time.time()}) + "\n")
        numbers = {f"{line['kind']}/{name}": value for name, value in line.items() if isinstance(value, float)}
        for sink in self._sinks:
            sink.log(line["step"], numbers)

    def close(self) -> None:
        """Flush and close the trackers."""
        for sink in self._sinks:
            sink.close()


def _step_flops(config: TrainConfig) -> float:
    return TRAINING_FACTOR * config.batch_size * forward_flops(config.model.unet)


def _peak_memory(device: torch.device) -> float:
    """Peak allocation on a GPU, else the process's peak resident size; bytes."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0
