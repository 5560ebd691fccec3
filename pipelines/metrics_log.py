"""metrics.jsonl: losses and speeds of a stage, one JSON object a line."""

import json
import os
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipelines.config import TrainConfig
from pipelines.runs import read_metrics
from pipelines.team import Team


class MetricsLog:
    """metrics.jsonl, written by worker 0; a resumed run drops the lines of steps that will be done again."""

    def __init__(self, path: Path, resume_step: int, team: Team) -> None:
        self._path, self._team = path, team
        self._losses: list[Tensor] = []
        self._norms: list[Tensor] = []
        self._waited, self._since, self._start = 0.0, time.perf_counter(), time.perf_counter()
        self._seconds_before = 0.0
        if team.rank == 0:
            kept = [line for line in read_metrics(path) if line["step"] <= resume_step] if resume_step else []
            self._seconds_before = kept[-1]["seconds"] if kept else 0.0
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_suffix(".tmp")
            temporary.write_text("".join(json.dumps(line) + "\n" for line in kept))
            os.replace(temporary, path)

    def waiting(self) -> "MetricsLog":
        """Context that counts its time as waiting for data."""
        return self

    def __enter__(self) -> None:
        self._wait_start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._waited += time.perf_counter() - self._wait_start

    def add(self, loss: Tensor, gradient_norm: Tensor) -> None:
        """Remember a step's statistics without reading them, which would wait for the device."""
        self._losses.append(loss)
        self._norms.append(gradient_norm)

    def interval(self, config: TrainConfig) -> dict[str, float]:
        """Means and speed since the last call, over all workers."""
        now = time.perf_counter()
        means = self._team.mean(torch.stack([torch.stack(self._losses).mean(), torch.stack(self._norms).mean()]))
        steps, seconds = len(self._losses), now - self._since
        result = {
            "loss": float(means[0]),
            "gradient_norm": float(means[1]),
            "images_per_second": steps * config.batch_size / seconds,
            "data_wait": self._waited / seconds,
        }
        self._losses, self._norms, self._waited, self._since = [], [], 0.0, now
        return result

    def write(self, line: dict[str, Any]) -> None:
        """Append a line, with the training time so far."""
        if self._team.rank != 0:
            return
        seconds = self._seconds_before + time.perf_counter() - self._start
        with self._path.open("a") as file:
            file.write(json.dumps({**line, "seconds": round(seconds, 3)}) + "\n")
