"""Upscaling held-out images for evaluation, with every method of a run; photos are upscaled in upscale.py."""

import logging
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.images.compact_png import encode_compact_png
from pipelines.images.decoding import decode_image
from pipelines.ingest.record_reader import RecordReader
from pipelines.ingest.split_reader import find_split
from pipelines.runs.bucket_runs import BucketRun
from pipelines.runs.run_data import require_data
from pipelines.runs.run_folder import Run, StageRun, open_run, write_atomic
from pipelines.runs.stage_run import check_input_noise
from pipelines.runtime.actor_pool import run_on_actors
from pipelines.runtime.actor_resources import find_actor_resources
from pipelines.runtime.allocator import keep_freed_memory
from pipelines.runtime.progress_display import Counted, print_progress
from pipelines.sampling.held_out_images import HeldOutImages, PreparedImages, Task, WholePhotos, upscale_photo
from pipelines.settings.evaluate import EvaluateConfig
from pipelines.settings.stages import stage_name
from pipelines.storage.leases.folder_lease import working_in
from pipelines.storage.leases.lease import Lease
from pipelines.storage.local_files import replacing
from pipelines.storage.versioned_json import read_object
from sr3core import strict_json
from sr3core.config import fingerprint_of, from_dict, scientific, to_dict
from sr3core.errors import ConfigError, DataError
from sr3core.randomness import NOISE_VERSION

TASK_IMAGES = 16
NUM_REPEATED = 8
"""Held-out images of which SR3 draws several samples (section 5 observed dropped modes)."""
log = logging.getLogger(__name__)


def save_png(image: np.ndarray, path: Path) -> None:
    """Write uint8 (H, W, 3) as PNG, under a temporary name first."""
    with replacing(path) as temporary:
        temporary.write_bytes(encode_compact_png(image))


class SplitUpscaler:
    """An actor that applies every method of a run to held-out low-resolution images and saves the outputs."""

    def __init__(self, run: str, config: dict[str, Any], folder: str, device: str) -> None:
        import torch

        keep_freed_memory()
        torch.set_num_threads(1)
        opened, wanted = open_run(run), from_dict(EvaluateConfig, config)
        self._seed, self._folder, self._device = wanted.seed, Path(folder), device
        self._reader_of = lru_cache(RecordReader)  # with the indices of the shards that it has read from
        fast = wanted.inference, device
        self._methods = {
            # A stage's name keys its noise; an ablation's arms have different names and must see the same noise.
            name: [replace(stage.load(wanted.schedule, *fast), name=stage.config.data_stage) for stage in stages]
            for name, stages in methods_of(opened).items()
        }

    def work(self, task: Task) -> None:
        """Write what is missing of <method>/<key>.png, for every method, low and reference and each of the images."""
        from sr3core.images.pixels import to_float, to_uint8
        from sr3core.images.resize import upsample_bicubic, upsample_nearest
        from sr3core.randomness import derive_seed
        from sr3core.upscaling.cascade import run_cascade
        from sr3core.upscaling.stage import output_size

        images, keys = task.images.load(self._reader_of), task.keys
        low = to_float(images.low).to(self._device)
        seeds = [derive_seed(self._seed + task.repeat, "held-out", key) for key in keys]
        if task.repeat:
            outputs = {repeated(task.repeat): run_cascade(self._methods["sr3"], low, seeds)}
        else:
            size = output_size([stage.model for stage in next(iter(self._methods.values()))], *images.low.shape[1:3])
            nearest = upsample_nearest(low, size)
            outputs = {"nearest": nearest, "bicubic": upsample_bicubic(low, size)}
            enlarge = upscale_photo if isinstance(task.images, WholePhotos) else run_cascade
            outputs |= {name: enlarge(stages, low, seeds) for name, stages in self._methods.items()}
        pictures = {} if task.repeat else {"low": images.low, "reference": images.high}
        pictures |= {method: to_uint8(output.cpu()) for method, output in outputs.items()}
        for method, made in pictures.items():
            for key, picture in zip(keys, made, strict=True):
                if not (path := self._folder / method / f"{key}.png").is_file():
                    save_png(picture, path)


def methods_of(run: Run) -> dict[str, tuple[StageRun, ...]]:
    """Compared methods -> their stages: the regression baselines and "sr3", or an ablation's arms.

    Raises:
        ConfigError: see `end_to_end`.
    """
    if is_ablation(run):
        return {stage.name: (stage,) for stage in run.cascade()}
    wanted = end_to_end(run)
    regressions = {stage.name: (stage,) for stage in run.regressions() if stage.config.data_stage == wanted}
    return {**regressions, "sr3": run.cascade()}


def is_ablation(run: Run) -> bool:
    """Whether the run has several SR3 stages of equal sizes, to be compared, rather than a cascade."""
    sizes = [stage.config.data_stage for stage in run.cascade()]
    return len(sizes) > 1 and len(set(sizes)) == 1


def repeated(number: int) -> str:
    """Name of the folder of SR3's samples with the number-th other noise."""
    return f"sr3-{number}"


def end_to_end(run: Run) -> str:
    """Name of the prepared stage from the cascade's first size to its last.

    Raises:
        ConfigError: the run has no SR3 stage, or its stages do not follow one another.
    """
    from sr3core.upscaling.stage import check_chain

    cascade = run.cascade()
    if not cascade:
        raise ConfigError(f"{run.path} has no SR3 stage to upscale with")
    check_chain([(stage.name, stage.model) for stage in cascade])
    return stage_name(cascade[0].config.model.low_size, cascade[-1].config.model.high_size)


def measured_stage(run: Run) -> str:
    """Name of the prepared stage on whose held-out images a run is measured.

    Raises:
        ConfigError: see `end_to_end`.
    """
    return run.cascade()[0].config.data_stage if is_ablation(run) else end_to_end(run)


@dataclass(frozen=True, slots=True)
class Samples:
    """Held-out images and every method's outputs for them: RUN/samples/<method>/<key>.png."""

    folder: Path
    split: str
    keys: tuple[str, ...]
    methods: tuple[str, ...]
    schedules: dict[str, dict[str, Any]]
    """Name and number of steps of each SR3 stage's schedule."""
    seed: int
    fingerprint: str
    """Fingerprint of the checkpoints, schedules, seed and images that they come from."""
    repeats: tuple[str, ...]
    """Folders of SR3's samples of the first NUM_REPEATED keys with other noise."""

    def read(self, method: str) -> Iterator[np.ndarray]:
        """A method's images, or those of "low" and "reference", (H, W, 3) uint8 in the keys' order, one at a time."""
        return (decode_image((self.folder / method / f"{key}.png").read_bytes()).pixels for key in self.keys)


def upscale_split(run: str, config: EvaluateConfig, folder: Path | None = None, data: str | None = None) -> Samples:
    """Apply every method of a run to held-out images and keep their outputs. Needs a running Ray.

    Outputs that exist from the same checkpoints, schedules, seed and images are reused.

    Args:
        run: run folder.
        config: which images, and how they are sampled.
        folder: for the outputs, on a disk that all nodes share; None uses RUN/samples.
        data: what `sr3 prepare` wrote; None uses what the run was trained on.

    Raises:
        DataError: the prepared data lack the methods' sizes, or the split is empty.
    """
    opened = open_run(run)
    sizes = measured_stage(opened)
    if data is None:
        require_data(opened, sizes, config.split)
    places = find_split(data or opened.data, sizes, config.split, config.limit)
    images = PreparedImages(places, opened.cascade()[0].config.degradation)
    return upscale_images(opened, config, images, folder or opened.path / "samples", [config.split, images.keys])


def upscale_images(run: Run, config: EvaluateConfig, images: HeldOutImages, folder: Path, identity: Any) -> Samples:
    """Apply every method of a run to low-resolution images; makes only missing outputs. Needs a running Ray.

    Args:
        run: the run.
        config: the schedule, the noise, how many actors.
        images: what to upscale, of the size that the run starts from, and the originals.
        folder: receives low/, reference/ and a folder per method; outputs made from anything else are deleted.
        identity: distinguishes these images from others, as JSON data.

    Raises:
        CheckpointError: a stage has no checkpoint, or one of another network.
        ConfigError: see `check_files_reach_all`.
        DataError: the processes that upscale die.
        StorageError: another process does the same beside the folder.
    """
    check_files_reach_all(run.bucket)
    methods = methods_of(run)
    stages = tuple({stage.name: stage for chain in reversed(methods.values()) for stage in chain}.values())
    for stage in stages:
        stage.check_weights()
    schedules = {stage.name: stage.schedule(config.schedule) for stage in run.cascade()}
    checkpoints = {stage.name: stage.weights.newest().state["sha256"] for stage in stages}
    check_input_noise(run.cascade(), config.inference)
    gammas = {name: scientific(s) for name, s in schedules.items() if s}
    names = ("nearest", "bicubic", *methods)
    samples = Samples(
        folder=folder,
        split=config.split,
        keys=images.keys,
        methods=names,
        schedules={
            name: {"name": s.name, "num_steps": s.num_steps, "num_evaluations": s.num_evaluations}
            for name, s in schedules.items()
            if s
        },
        seed=config.seed,
        fingerprint=fingerprint_of(
            [checkpoints, gammas, config.seed, NOISE_VERSION, identity, names, *config.inference.decides]
        ),
        repeats=tuple(repeated(k) for k in range(1, config.num_seeds)) if "sr3" in methods else (),
    )
    with working_in(str(folder.parent), "evaluating") as lease:
        _draw(run.location, config, samples, images, lease)
    return samples


def _draw(run: str, config: EvaluateConfig, samples: Samples, images: HeldOutImages, lease: Lease) -> None:
    """Make the missing outputs; outputs made from anything else are deleted first."""
    import ray

    marker = samples.folder / "samples.json"
    known = read_object(marker)
    if known.get("fingerprint") != samples.fingerprint:
        shutil.rmtree(samples.folder, ignore_errors=True)
        known = {"fingerprint": samples.fingerprint, "num_images": 0, "seconds": 0.0}
        write_atomic(marker, strict_json.dumps(known))
    tasks = [task for task in _tasks(samples, images) if not _is_done(task, samples)]
    if not tasks:
        log.info("samples: %s is up to date", samples.folder)
        return
    actors = find_actor_resources(config.num_actors, config.inference.gpus, open_run(run).trained_on_gpus)
    upscaler = ray.remote(SplitUpscaler).options(num_cpus=1, num_gpus=actors.gpus)

    def make_actor() -> Any:
        return upscaler.remote(run, to_dict(config), str(samples.folder), actors.device)

    progress, show = (
        Counted("samples", sum(len(task.keys) for task in tasks), "held-out images"),
        print_progress(),
    )
    show(progress)
    for task, error in run_on_actors(make_actor, tasks, actors.num_actors):
        if error is not None:
            raise DataError(
                f"{samples.folder}: the process that upscaled {task.keys[0]} and others died twice"
            ) from error
        lease.check_not_taken()
        progress.done += len(task.keys)
        show(progress)
    known["num_images"] = known.get("num_images", 0) + progress.total
    known["seconds"] = known.get("seconds", 0.0) + time.monotonic() - progress.started
    write_atomic(marker, strict_json.dumps(known))


def _tasks(samples: Samples, images: HeldOutImages) -> list[Task]:
    at_once = 1 if isinstance(images, WholePhotos) else TASK_IMAGES  # photos differ in size
    starts = range(0, len(images.keys), at_once)
    tasks = [Task(images.part(slice(first, first + at_once))) for first in starts]
    few = images.part(slice(0, NUM_REPEATED))
    return tasks + [Task(few, k) for k in range(1, len(samples.repeats) + 1)]


def _is_done(task: Task, samples: Samples) -> bool:
    made = (repeated(task.repeat),) if task.repeat else ("low", "reference", *samples.methods)
    return all((samples.folder / name / f"{key}.png").is_file() for name in made for key in task.keys)


def check_files_reach_all(bucket: BucketRun | None) -> None:
    """Check that actors can write into a run's folder, which for a run in a bucket is this machine's working copy.

    Raises:
        ConfigError: the run is in a bucket, and the cluster would start actors on other machines too.
    """
    import ray

    here = ray.get_runtime_context().get_node_id()
    able = [node["NodeID"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    others = [node for node in able if node != here]
    if bucket is not None and others:
        raise ConfigError(
            f"{bucket.uri} is in a bucket, and {len(others)} other nodes could not write into this one's working"
            " copy; evaluate it on one machine, or copy the run to a file system that all nodes share"
        )
