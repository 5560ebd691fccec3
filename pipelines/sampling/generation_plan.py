"""What `sr3 sample` will do: its stages, schedules and classes, and the images that are missing."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from shlex import quote
from typing import Any

from pipelines.runs.run_folder import Run, StageRun
from pipelines.settings.sample import SampleConfig, parse_classes
from pipelines.storage.uris import absolute, exists, is_remote, join, list_files, read_bytes
from pipelines.storage.versioned_json import decoding
from pipelines.storage.writable import refuse_unwritable_file
from sr3core import strict_json
from sr3core.config import differences, fingerprint_of, scientific
from sr3core.diffusion.schedules import InferenceSchedule
from sr3core.errors import ConfigError
from sr3core.randomness import NOISE_VERSION

RECORD = "samples.json"
IMAGE_NAME = re.compile(r"(\d{6,})\.png")


@dataclass(frozen=True, slots=True)
class Plan:
    """What `sr3 sample` will do, checked."""

    stages: tuple[StageRun, ...]
    """The base model and what follows it."""
    schedules: tuple[InferenceSchedule, ...]
    """One schedule per stage."""
    classes: tuple[int, ...]
    """Classes that the images cycle through; empty for a base model without classes."""
    todo: tuple[int, ...]
    """Numbers of the missing images."""
    content: dict[str, Any]
    """What determines an image besides its number, by name."""

    def class_of(self, number: int) -> int:
        """Class of an image."""
        return self.classes[number % len(self.classes)]


def generation_stages(run: Run) -> tuple[StageRun, ...]:
    """The base model and the stages that enlarge its images.

    Raises:
        ConfigError: the run has no base model, or sizes do not follow one another.
    """
    from sr3core.upscaling.stage import check_chain

    base = run.base()
    if base is None:
        upscaling = f"`sr3 upscale PHOTOS --run {quote(run.location)} --out DIR`"
        raise ConfigError(
            f"{run.location} has no base model, so it cannot draw images from noise: train a preset such as"
            f" small-cascade, or upscale photos with this run: {upscaling}"
        )
    stages = (base, *run.cascade())
    check_chain([(stage.name, stage.model) for stage in stages])
    return stages


def schedules_of(stages: Sequence[StageRun], wanted: str | None) -> tuple[InferenceSchedule, ...]:
    """Each stage's schedule: either the same one for all stages, or one per stage.

    Raises:
        ConfigError: their number differs from that of the stages, or one does not exist or fit.
    """
    names = [None] if wanted is None else [name.strip() for name in wanted.split(",")]
    if len(names) not in (1, len(stages)):
        named = ", ".join(stage.name for stage in stages)
        raise ConfigError(f"schedule: {wanted!r} names {len(names)}, but the run has {len(stages)} stages: {named}")
    found = []
    for stage, name in zip(stages, names * len(stages) if len(names) == 1 else names, strict=True):
        schedule = stage.schedule(name)
        assert schedule is not None, "regression is no part of a cascade"
        if schedule.sampler.guidance and stage.model.unet.num_classes is None:
            raise ConfigError(f"guidance: {stage.name} has no classes; give it a schedule of guidance 0")
        if schedule.sampler.project and stage.model.low_size is None:
            raise ConfigError(f"project: {stage.name} has no low-resolution image; give it a schedule of project 0")
        if schedule.sampler.start == "input" and stage.model.low_size is None:
            raise ConfigError(f"start: {stage.name} has no low-resolution image; give it one that starts from noise")
        found.append(schedule)
    return tuple(found)


def classes_of(base: StageRun, wanted: str | None) -> tuple[int, ...]:
    """The classes that images cycle through.

    Raises:
        ConfigError: the base model has no classes, or not all of these.
    """
    num_classes = base.model.unet.num_classes
    if num_classes is None:
        if wanted is not None:
            raise ConfigError(f"classes: {base.name} was trained without classes; omit them")
        return ()
    classes = tuple(range(num_classes)) if wanted is None else parse_classes(wanted)
    if max(classes) >= num_classes:
        raise ConfigError(f"classes: {max(classes)} is not in 0..{num_classes - 1}, which {base.name} was trained on")
    return classes


def plan_samples(run: Run, out: str | None, config: SampleConfig) -> Plan:
    """Check everything that can be checked before a network is loaded; out None stands for an empty folder.

    Raises:
        ConfigError, CheckpointError: the run cannot draw the requested images, or `out` holds other images.
    """
    refuse_unwritable_file("grid", config.grid, ".png")
    stages = generation_stages(run)
    for stage in stages:
        stage.check_weights()
    schedules, classes = schedules_of(stages, config.schedule), classes_of(stages[0], config.classes)
    content = _content(stages, schedules, classes, config)
    there = _numbers_there(absolute(out), content) if out is not None else set()
    todo = tuple(number for number in config.numbers if number not in there)
    return Plan(stages, schedules, classes, todo, content)


def _numbers_there(out: str, content: dict[str, Any]) -> set[int]:
    names = [name for name, _ in list_files(out)] if is_remote(out) or exists(out) else []
    known, changed = RECORD in names, []
    if known:
        with decoding(join(out, RECORD), "record of samples", "choose another --out"):
            changed = differences(dict(strict_json.loads(read_bytes(join(out, RECORD)))["content"]), content)
    if changed:
        raise ConfigError(
            f"out: {out} holds images made with other settings: {'; '.join(changed)}; repeat those options, or choose"
            " another --out"
        )
    there = {int(found[1]) for name in names if (found := IMAGE_NAME.fullmatch(name))}
    if there and not known:
        raise ConfigError(f"{out} holds numbered images that `sr3 sample` did not draw; choose another --out")
    return there


def _content(
    stages: Sequence[StageRun],
    schedules: Sequence[InferenceSchedule],
    classes: Sequence[int],
    config: SampleConfig,
) -> dict[str, Any]:
    """Everything but its number that determines an image, by name: for the record, and to report differences."""
    checkpoints = {f"{s.name}_checkpoint": s.weights.fingerprint() for s in stages}
    walks = [[list(schedule.gammas), scientific(schedule.sampler)] for schedule in schedules]
    return {
        **checkpoints,
        **{f"{stage.name}_schedule": fingerprint_of(walk) for stage, walk in zip(stages, walks, strict=True)},
        "seed": config.seed,
        "noise_version": NOISE_VERSION,
        "classes": list(classes),
        "precision": config.inference.precision,
    }
