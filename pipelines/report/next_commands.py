"""What to run next, for each state of a preparation or a run."""

from collections.abc import Collection, Iterator
from shlex import quote

from pipelines.prepare.finished.status import PrepareStatus
from pipelines.runs.run_folder import Run
from pipelines.sampling.held_out import is_ablation
from pipelines.settings.mixtures import data_words
from pipelines.settings.presets import PRESETS, preset
from pipelines.storage.uris import join
from pipelines.training.checkpoints import steps_done


def after_preparation(stages: Collection[str], out: str) -> str:
    """How to train on what was prepared, with a preset that fits it if there is one."""
    there = set(stages)
    fitting = [
        name for name in PRESETS if {stage.data_stage for stage in preset(name).stages} == there and name != "demo"
    ]
    return f"next: sr3 train {fitting[0] if fitting else 'PRESET'} --data {quote(out)} --out RUN"


def after_training(run: Run) -> Iterator[str]:
    """How to use a trained run: draw, search a schedule, or upscale; nothing for ablations, which are compared."""
    stages, place = [stage.name for stage in run.cascade()], quote(run.location)
    if run.base() is not None:
        yield f"next: sr3 sample --run {place} --out DIR"
    elif stages and not is_ablation(run):
        others = " (and so on for each stage)" if len(stages) > 1 else ""
        yield f"next: sr3 search --run {place} --stage {stages[0]}{others}"
        yield f"  or: {upscaling(run)}"


def of_preparation(found: PrepareStatus, is_busy: bool) -> list[str]:
    """The next command of a preparation.

    Args:
        found: its state.
        is_busy: whether a command is at work there.
    """
    if found.complete:
        return [after_preparation([stage.stage for stage in found.stages], found.out)]
    return [] if is_busy else ["next: repeat its `sr3 prepare` command, which goes on from here"]


def of_run(run: Run, is_busy: bool) -> list[str]:
    """The next commands of a run.

    Args:
        run: the run.
        is_busy: whether it is being trained.
    """
    place = quote(run.location)
    if any(steps_done(stage) < stage.config.num_steps for stage in run.stages):
        return [] if is_busy else [_resumed(run)]
    if run.base() is not None or is_ablation(run):
        return list(after_training(run)) or [f"next: sr3 report {place}"]
    if not all(list(stage.schedules.glob("best-*.json")) for stage in run.cascade()):
        return list(after_training(run))
    if not (run.path / ("field-evaluation.json" if makes_fields(run) else "evaluation.json")).is_file():
        return [f"next: sr3 evaluate --run {place}"]
    if not (run.path / "report.html").is_file():
        return [f"next: sr3 report {place}"]
    return [f"next: {upscaling(run)}"]


def upscaling(run: Run) -> str:
    """How to upscale with a run: photos, or a store where it makes fields."""
    if makes_fields(run):
        return f"sr3 upscale STORE.zarr --run {quote(run.location)} --out OUT.zarr"
    return f"sr3 upscale PHOTOS --run {quote(run.location)} --out DIR"


def makes_fields(run: Run) -> bool:
    """Whether a run makes fields rather than images."""
    return any(stage.sample is not None for stage in run.stages)


def _resumed(run: Run) -> str:
    """The command that trains a run to its end."""
    place = quote(run.location)
    if run.config.name == "demo" and run.data == join(run.location, "data"):
        return f"next: sr3 demo --out {place}"
    if is_ablation(run):
        return "next: repeat its `sr3 ablate` command, which goes on from here"
    started = "goes on from the checkpoints" if any(map(steps_done, run.stages)) else "begins at step 0: no checkpoint"
    config = quote(join(run.location, "config.json"))
    command = f"sr3 train --config {config} --data {data_words(run.data)} --out {place}"
    return f"next: {command}    ({started})"
