"""Numbered images from noise: a run's base model and the stages that enlarge its samples, on Ray actors.

An image is a pure function of the checkpoints, the schedules, the seed, its number and its class, whatever the batch,
the number of actors or how often the command was interrupted. OUT/samples.json records what the images were made from.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pipelines.images.compact_png import encode_compact_png
from pipelines.images.decoding import decode_image
from pipelines.runs.run_folder import Run, open_run
from pipelines.runtime.actor_pool import run_on_actors
from pipelines.runtime.actor_resources import find_actor_resources
from pipelines.runtime.allocator import keep_freed_memory
from pipelines.runtime.progress_display import print_progress
from pipelines.runtime.provenance import provenance
from pipelines.sampling.generation_plan import IMAGE_NAME, RECORD, Plan, plan_samples
from pipelines.sampling.sample_progress import SampleProgress
from pipelines.settings.sample import SampleConfig
from pipelines.storage.leases.folder_lease import working_in
from pipelines.storage.leases.lease import Lease
from pipelines.storage.uris import absolute, delete, join, list_files, read_bytes, write_atomic
from sr3core import strict_json
from sr3core.config import from_dict, to_dict
from sr3core.errors import Sr3Error, StorageError

SAMPLES_FORMAT_VERSION = 1
NUM_TRIES = 10
"""How often a batch is begun: batches are alike, so that it is nodes that go, not the batch."""
LABELS = "labels.csv"
_GRID_IMAGES = 100
_GRID_COLUMNS = 16
_LEFTOVER = re.compile(r"\.[0-9a-f]{8}-(\d{6,})\.png\.tmp")


def sample_images(
    run: str, out: str, config: SampleConfig, on_progress: Callable[[SampleProgress], None] | None = None
) -> Plan:
    """Draw images from noise to OUT/000000.png onwards, with their classes in OUT/labels.csv. Needs a running Ray.

    Images that `out` already holds are not drawn again.

    Args:
        run: run folder or s3:// URI.
        out: folder or s3:// prefix.
        config: how many, of which classes.
        on_progress: called after every batch; by default progress is printed to standard error.

    Returns:
        what was done.

    Raises:
        ConfigError, CheckpointError: see plan_samples.
        StorageError: an image could not be written, or another process draws the same ones.
    """
    with working_in(out, "sampling", part_of(config)) as lease:
        return _sample(open_run(run), absolute(out), config, lease, on_progress or print_progress())


def part_of(config: SampleConfig) -> str:
    """The images of a folder that a command has for itself; others may draw other numbers at the same time."""
    return f"{config.numbers[0]}-{config.numbers[-1]}"


def _sample(opened: Run, out: str, config: SampleConfig, lease: Lease, show: Callable[[SampleProgress], None]) -> Plan:
    plan = plan_samples(opened, out, config)
    record = {"format": "sr3-samples", "format_version": SAMPLES_FORMAT_VERSION, "content": plan.content}
    write_atomic(join(out, RECORD), strict_json.dumps({**record, "provenance": provenance(config)}, indent=1).encode())
    _delete_leftovers(out, config.numbers)
    if plan.todo:
        _draw_on_actors(opened.location, plan, out, config, lease, show)
    if plan.classes:
        write_atomic(join(out, LABELS), _labels(out, plan).encode())
    if config.grid is not None:
        write_atomic(config.grid, _grid(out, plan, config.numbers[:_GRID_IMAGES]))
    return plan


def _draw_on_actors(
    run: str, plan: Plan, out: str, config: SampleConfig, lease: Lease, show: Callable[[SampleProgress], None]
) -> None:
    import ray

    actors = find_actor_resources(config.num_actors, config.inference.gpus, open_run(run).trained_on_gpus)
    drawer = ray.remote(Drawer).options(num_cpus=actors.cpus, num_gpus=actors.gpus)
    batches = [plan.todo[start : start + config.batch] for start in range(0, len(plan.todo), config.batch)]
    progress = SampleProgress(len(plan.todo), config.num_images - len(plan.todo))

    def make_actor() -> Any:
        return drawer.remote(run, out, to_dict(config), actors.cpus, actors.device)

    def tick(_busy: list[Any]) -> None:
        lease.check_not_taken()
        show(progress)

    for numbers, error in run_on_actors(make_actor, batches, actors.num_actors, tick, NUM_TRIES):
        if error is not None:
            raise error if isinstance(error, StorageError) else Sr3Error(_died(numbers))
        progress.images_done += len(numbers)


def _died(numbers: Sequence[int]) -> str:
    return (
        f"the process that draws images {numbers[0]} to {numbers[-1]} died {NUM_TRIES} times; more memory, or a smaller"
        " --batch, may help. Images that are drawn are kept: the same command goes on"
    )


class Drawer:
    """A Ray actor that holds a run's networks and draws one batch of images after another."""

    def __init__(self, run: str, out: str, config: dict[str, Any], threads: int, device: str) -> None:
        import torch

        from sr3core.upscaling.stage import Stage

        keep_freed_memory()
        torch.set_num_threads(threads)
        self._out, self._config = out, from_dict(SampleConfig, config)
        self._plan = plan_samples(open_run(run), out, self._config)
        inference = self._config.inference
        self._stages = [
            Stage(
                stage.name,
                stage.model,
                stage.weights.load_fast(inference, device),
                schedule,
                stage.load_mean(inference, device),
            )
            for stage, schedule in zip(self._plan.stages, self._plan.schedules, strict=True)
        ]

    def work(self, numbers: Sequence[int]) -> StorageError | None:
        """Draw the images of these numbers, and write each of them atomically; returns why one cannot be written."""
        from sr3core.images.pixels import to_uint8
        from sr3core.randomness import derive_seed
        from sr3core.upscaling.cascade import generate

        seeds = [derive_seed(self._config.seed, "sample", number) for number in numbers]
        classes = [self._plan.class_of(number) for number in numbers] if self._plan.classes else None
        images = to_uint8(generate(self._stages, seeds, classes).cpu())
        try:
            for number, image in zip(numbers, images, strict=True):
                write_atomic(join(self._out, image_name(number)), encode_compact_png(image))
        except StorageError as error:
            return error
        return None


def image_name(number: int) -> str:
    """File name of an image."""
    return f"{number:06d}.png"


def _delete_leftovers(out: str, numbers: range) -> None:
    """Delete temporary files that killed processes left of these images; others may be drawing other numbers."""
    for name, _ in list(list_files(out)):
        if (found := _LEFTOVER.fullmatch(name)) and int(found[1]) in numbers:
            delete(join(out, name))


def _labels(out: str, plan: Plan) -> str:
    names = sorted(name for name, _ in list_files(out) if IMAGE_NAME.fullmatch(name))
    return "\n".join(["file,class", *(f"{name},{plan.class_of(int(name[:-4]))}" for name in names), ""])


def _grid(out: str, plan: Plan, numbers: Sequence[int]) -> bytes:
    """Images side by side in the order of their numbers; one column per class where that is narrow enough."""
    fit = round(len(numbers) ** 0.5)
    columns = len(plan.classes) if 1 < len(plan.classes) <= min(_GRID_COLUMNS, len(numbers)) else fit
    images = [decode_image(read_bytes(join(out, image_name(number)))).pixels for number in numbers]
    images += [np.full_like(images[0], 255)] * (-len(images) % columns)
    rows = [np.concatenate(images[start : start + columns], axis=1) for start in range(0, len(images), columns)]
    return encode_compact_png(np.concatenate(rows))
