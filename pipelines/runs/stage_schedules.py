"""Choosing a stage's inference schedule: a file, a searched one, or the trained schedule respaced."""

from dataclasses import replace
from pathlib import Path

from pipelines.settings.locations import split_start
from sr3core.config import did_you_mean
from sr3core.diffusion.schedules import InferenceSchedule, default_sampler, default_schedule, schedule_from_json
from sr3core.errors import ConfigError
from sr3core.hyperparameters import ModelConfig

DEFAULT_STEPS = 100
"""Section 2.4's budget."""
FEW_STEPS = 10
"""Steps of DDIM, the best deterministic sampler at few steps on the networks of docs/explanation/results.md."""


def choose_schedule(
    folder: Path, model: ModelConfig, wanted: str | None = None, few_steps: bool = False
) -> InferenceSchedule | None:
    """The inference schedule to use, also one that starts from the input; None for regression.

    Args:
        folder: RUN/<stage>/schedules.
        model: the stage's model configuration.
        wanted: a file, the name of a schedule in the folder, or a number of steps: the trained schedule respaced. By
            default best-*.json of the most steps, else the trained schedule respaced to DEFAULT_STEPS. With an end
            @GAMMA, its part below that noise level, from the input instead of from noise.
        few_steps: where no schedule has been searched, respace it to FEW_STEPS instead, and walk them by DDIM without
            noise: a tenth of the time, for photos rather than for the paper's numbers.

    Raises:
        ConfigError: no such schedule, or it has more steps than the network was trained with, or noise levels below
            those that it was trained at; or the start lies outside of its levels, or a base model has no input.
        CheckpointError: the schedule's file is damaged.
    """
    if model.kind == "regression":
        return None
    name, gamma_start = (None, None) if wanted is None else split_start(wanted)
    schedule = _schedule_of(folder, model, name or None, few_steps)
    if gamma_start is None:
        return schedule
    from sr3core.diffusion.input_start import started_from_input  # torch takes seconds to import

    if model.kind == "base":
        raise ConfigError(f"schedule: {wanted!r} starts from an input, which a base model does not have; omit the @")
    return started_from_input(schedule, gamma_start)


def _schedule_of(folder: Path, model: ModelConfig, wanted: str | None, few_steps: bool) -> InferenceSchedule:
    """The schedule itself, whatever it starts from."""
    noise = model.noise_schedule
    best = sorted(folder.glob("best-*.json"), key=lambda path: int(path.stem.removeprefix("best-")))
    if wanted is None and not best and few_steps:
        respaced = default_schedule(noise, min(FEW_STEPS, noise.num_steps))
        ddim = replace(default_sampler(model), algorithm="ddim")
        return replace(respaced, sampler=ddim, name=f"ddim-{respaced.num_steps}")
    if wanted is None and not best:
        return default_schedule(noise, min(DEFAULT_STEPS, noise.num_steps), default_sampler(model))
    if wanted is not None and wanted.isdecimal():
        return default_schedule(noise, int(wanted), default_sampler(model))
    path = best[-1] if wanted is None else _find(folder, wanted)
    from sr3core.upscaling.stage import check_levels  # torch takes seconds to import

    found = schedule_from_json(path.read_bytes(), str(path))
    try:
        check_levels(model, found)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    return found


def check_schedule_file(wanted: str | None) -> None:
    """Miss a schedule's file before there is the run that it is for; a name or a number is not looked up.

    Raises:
        ConfigError: it is written as a path, and there is no such file.
    """
    name = split_start(wanted)[0] if wanted is not None else ""
    if "/" in name and not Path(name).is_file():
        raise ConfigError(f"schedule: {name} is no file; name one, a number of steps, or leave it out")


def _find(folder: Path, wanted: str) -> Path:
    for path in (Path(wanted), folder / wanted, folder / f"{wanted}.json"):
        if path.is_file():
            return path
    known = [path.stem for path in folder.glob("*.json")]
    hint = did_you_mean(wanted, known) if known else "run `sr3 search` to make some"
    raise ConfigError(f"schedule: {wanted!r} is neither a file, a number of steps nor one of {folder}; {hint}")
