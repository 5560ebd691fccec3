"""Bad steps: which samples they contained, and whether training continues (OptimizerConfig.bad_steps)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from pipelines.runs.run_folder import read_metrics
from sr3core import strict_json
from sr3core.hyperparameters import OptimizerConfig
from sr3core.training import StepStatistics

MOST_SAMPLES = 16
"""Samples named per bad step and worker: those whose loss is not finite, then those with the largest."""


class Incidents:
    """Collects an interval's steps on the device and examines them once, at its end.

    incidents.jsonl has a line for each bad step and worker: the step at which it was noticed, the step itself, the
    worker, the gradient's norm, and the worst samples with their losses.
    """

    def __init__(self, path: Path, rank: int, config: OptimizerConfig) -> None:
        """Start with no steps.

        Args:
            path: incidents.jsonl.
            rank: this worker's.
            config: says how many bad steps in a row end the training.
        """
        self._path, self._rank = path, rank
        self._most = 1 if config.bad_steps == "stop" else config.max_bad_steps
        self._in_a_row = 0
        self._steps: list[tuple[int, tuple[str, ...], StepStatistics]] = []

    def add(self, step: int, keys: tuple[str, ...], statistics: StepStatistics) -> None:
        """Record a step without waiting for the device."""
        self._steps.append((step, keys, statistics))

    def look(self) -> bool:
        """Write the bad steps since the last call to incidents.jsonl; whether training must stop."""
        steps, self._steps = self._steps, []
        flags = torch.stack([statistics.is_bad for _, _, statistics in steps]).tolist()
        bad = [step for step, flag in zip(steps, flags, strict=True) if flag]
        if bad:
            seen = steps[-1][0]
            write_incidents(self._path, [{"seen_at": seen, **self._describe(*step)} for step in bad])
        return self._ends(flags)

    def _ends(self, flags: Sequence[bool]) -> bool:
        """Whether as many steps in a row were bad as end the training; the row may have begun in earlier intervals."""
        for is_bad in flags:
            self._in_a_row = self._in_a_row + 1 if is_bad else 0
            if self._in_a_row >= self._most:
                return True
        return False

    def _describe(self, step: int, keys: tuple[str, ...], statistics: StepStatistics) -> dict[str, Any]:
        losses = statistics.sample_losses.tolist()
        worst = sorted(zip(losses, keys, strict=True), key=lambda pair: (pair[0] == pair[0], -pair[0]))[:MOST_SAMPLES]
        return {
            "step": step,
            "worker": self._rank,
            "gradient_norm": str(float(statistics.gradient_norm)),  # JSON knows no nan
            "samples": [{"key": key, "loss": str(loss)} for loss, key in worst],
        }


def write_incidents(path: Path, lines: Sequence[dict[str, Any]]) -> None:
    """Append lines to incidents.jsonl; any worker may, since each line is a single write."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        for line in lines:
            file.write(strict_json.dumps(line) + "\n")


def bad_steps(path: Path) -> set[int]:
    """The steps that were skipped so far."""
    return {line["step"] for line in read_metrics(path)}


def describe_last_incident(path: Path, config: OptimizerConfig) -> str:
    """Why training stopped, in a sentence, with the remedy: the bad step, or the row of them, that was noticed last."""
    lines = read_metrics(path)
    if config.bad_steps == "skip":
        steps = sorted({line["step"] for line in lines})
        first = next(step for step in reversed(steps) if step - 1 not in steps)
        count = steps[-1] - first + 1
        start, remedy = f"{count} steps in a row were bad and were skipped, {first} to {steps[-1]}: ", ""
    else:
        first = min(line["step"] for line in lines if line["seen_at"] == lines[-1]["seen_at"])
        start, remedy = "", "; optimizer.bad_steps=skip continues without such steps"
    last = [line for line in lines if line["step"] == first]
    keys = ", ".join(sample["key"] for line in last for sample in line["samples"][:4])
    return (
        f"{start}step {first} had a gradient of norm {last[0]['gradient_norm']} and was skipped; its worst samples:"
        f" {keys} (all in {path}). Inspect them, lower optimizer.learning_rate or set"
        f" optimizer.gradient_clip{remedy}"
    )
