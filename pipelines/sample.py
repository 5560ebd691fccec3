"""Upscaling held-out images for evaluation, through every method of a run; photos are upscaled in upscale.py."""

import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.actors import gpus_per_actor, run_on_actors
from pipelines.config import EvaluateConfig
from pipelines.decode import decode_image
from pipelines.ingest import load_split
from pipelines.memory import keep_freed_memory
from pipelines.runs import Run, StageRun, open_run, write_atomic
from sr3core.config import fingerprint_of, from_dict, to_dict
from sr3core.errors import ConfigError, DataError

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)


def save_png(image: np.ndarray, path: Path) -> None:
    """Write uint8 (H, W, 3) as PNG, under a temporary name first."""
    from PIL import Image

    buffer = BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(buffer.getvalue())
    temporary.replace(path)


class SplitUpscaler:
    """An actor that applies every method of a run to held-out low-resolution images and saves the outputs."""

    def __init__(self, run: str, config: dict[str, Any], folder: str, device: str) -> None:
        import torch

        keep_freed_memory()
        torch.set_num_threads(1)
        opened, wanted = open_run(run), from_dict(EvaluateConfig, config)
        self._seed, self._folder, self._device = wanted.seed, Path(folder), device
        fast = wanted.inference, device
        self._cascade = [stage.load(wanted.schedule, *fast) for stage in opened.cascade()]
        self._regressions = {stage.name: stage.load(None, *fast) for stage in comparable_regressions(opened)}

    def work(self, task: tuple[Sequence[str], np.ndarray]) -> None:
        """Write <method>/<key>.png for every method and each of the task's keys and images, uint8 (B, h, w, 3)."""
        from sr3core.images import to_float, to_uint8

        keys, low = task
        for method, images in self._apply(to_float(low).to(self._device), keys).items():
            for key, image in zip(keys, to_uint8(images.cpu()), strict=True):
                save_png(image, self._folder / method / f"{key}.png")

    def _apply(self, low: "Tensor", keys: Sequence[str]) -> dict[str, "Tensor"]:
        from sr3core.cascade import run_cascade, upscale
        from sr3core.randomness import derive_seed
        from sr3core.resize import upsample_bicubic

        seeds = [derive_seed(self._seed, "held-out", key) for key in keys]
        size = self._cascade[-1].model.high_size
        factor = size // low.shape[-1]
        nearest = low.repeat_interleave(factor, dim=2).repeat_interleave(factor, dim=3)
        outputs = {"nearest": nearest, "bicubic": upsample_bicubic(low, size)}
        for name, stage in self._regressions.items():
            outputs[name] = upscale(stage, low, seeds)
        return {**outputs, "sr3": run_cascade(self._cascade, low, seeds)}


def comparable_regressions(run: Run) -> list[StageRun]:
    """The regression baselines that map the cascade's first size to its last, as a comparison needs."""
    return [stage for stage in run.regressions() if stage.config.data_stage == end_to_end(run)]


def end_to_end(run: Run) -> str:
    """Name of the prepared stage from the cascade's first size to its last.

    Raises:
        ConfigError: the run has no SR3 stage, or its stages do not follow one another.
    """
    cascade = [stage.config.model for stage in run.cascade()]
    if not cascade:
        raise ConfigError(f"{run.path} has no SR3 stage to upscale with")
    for before, after in pairwise(cascade):
        if before.high_size != after.low_size:
            raise ConfigError(
                f"{run.path}: a stage ends at {before.high_size} pixels and the next starts at {after.low_size};"
                " a cascade needs them equal"
            )
    return f"{cascade[0].low_size}-{cascade[-1].high_size}"


@dataclass(frozen=True, slots=True)
class Samples:
    """Held-out images and what every method of a run made of them: RUN/samples/<method>/<key>.png."""

    folder: Path
    split: str
    keys: tuple[str, ...]
    methods: tuple[str, ...]
    schedules: dict[str, dict[str, Any]]
    """Name and number of steps of each SR3 stage's schedule."""
    seed: int
    fingerprint: str
    """Of the checkpoints, schedules, seed and images that they come from."""

    def read(self, method: str) -> list[np.ndarray]:
        """A method's images, or those of "low" and "reference", (H, W, 3) uint8 in the keys' order."""
        return [decode_image((self.folder / method / f"{key}.png").read_bytes()).pixels for key in self.keys]


def upscale_split(run: str, config: EvaluateConfig) -> Samples:
    """Apply every method of a run to held-out images and keep their outputs in RUN/samples. Needs a running Ray.

    What is there already from the same checkpoints, schedules, seed and images is used again.

    Raises:
        DataError: the prepared data lack the cascade's end-to-end stage, or the split is empty.
    """
    import ray

    opened = open_run(run)
    images = load_split(opened.data, end_to_end(opened), config.split, config.limit)
    if not images.keys:
        raise DataError(f"{opened.data}/{end_to_end(opened)} holds no {config.split} images: prepare more")
    stages = (*opened.cascade(), *comparable_regressions(opened))
    for stage in stages:
        stage.check()
    schedules = {stage.name: stage.schedule(config.schedule) for stage in opened.cascade()}
    checkpoints = {stage.name: stage.newest_checkpoint().state["sha256"] for stage in stages}
    gammas = {name: asdict(s) for name, s in schedules.items() if s}
    methods = ("nearest", "bicubic", *(stage.name for stage in comparable_regressions(opened)), "sr3")
    samples = Samples(
        folder=opened.path / "samples",
        split=config.split,
        keys=images.keys,
        methods=methods,
        schedules={
            name: {"name": s.name, "num_steps": s.num_steps, "num_evaluations": s.num_evaluations}
            for name, s in schedules.items()
            if s
        },
        seed=config.seed,
        fingerprint=fingerprint_of(
            [checkpoints, gammas, config.seed, config.split, images.keys, methods, config.inference.precision]
        ),
    )
    content = {"fingerprint": samples.fingerprint}
    marker = samples.folder / "samples.json"
    if marker.is_file() and json.loads(marker.read_text()) == content:
        log.info("samples: %s is up to date", samples.folder)
        return samples
    shutil.rmtree(samples.folder, ignore_errors=True)
    for method, pictures in (("low", images.low), ("reference", images.high)):
        for key, picture in zip(images.keys, pictures, strict=True):
            save_png(picture, samples.folder / method / f"{key}.png")
    size, gpus = 16, gpus_per_actor(config.num_actors)
    starts = range(0, len(images.keys), size)
    tasks = [(images.keys[first : first + size], images.low[first : first + size]) for first in starts]
    upscaler = ray.remote(SplitUpscaler).options(num_cpus=1, num_gpus=gpus)
    device = "cuda" if gpus else "cpu"

    def make_actor() -> Any:
        return upscaler.remote(opened.location, to_dict(config), str(samples.folder), device)

    count = 0
    for (keys, _), error in run_on_actors(make_actor, tasks, config.num_actors):
        if error is not None:
            raise DataError(f"{samples.folder}: the process that upscaled {keys[0]} and others died twice") from error
        count += len(keys)
        log.info("samples: %d/%d held-out images upscaled", count, len(images.keys))
    write_atomic(marker, json.dumps(content))
    return samples
