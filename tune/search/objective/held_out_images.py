"""Fitting a search to the held-out images that there are, with a warning of what so many can tell."""

from collections.abc import Callable

from pipelines.ingest.split_reader import SplitReader
from pipelines.runs.run_folder import StageRun
from pipelines.settings.mixtures import describe_data
from sr3core.config import override
from sr3core.errors import DataError
from sr3core.hyperparameters import require
from tune.search.objective.yardstick import ENOUGH_FOR_KID, SCORES, what_decides
from tune.search.settings import SearchConfig

MIN_IMAGES = 4
"""With fewer there is no standard error."""


def fit_to_images(stage: StageRun, config: SearchConfig, report: Callable[[str], None]) -> SearchConfig:
    """The search with at most as many images as its split holds, and no confirmation without images for it.

    Args:
        stage: the stage that is searched.
        config: what was asked for.
        report: receives a line for each thing that is less than that, and for what so few images can tell.

    Raises:
        DataError: there are fewer than MIN_IMAGES.
    """
    config = _with_objective(stage, config)
    found = num_held_out(stage, config.split)
    if found < MIN_IMAGES:
        raise DataError(
            f"stage {stage.config.data_stage} of {describe_data(stage.data)} holds {found} {config.split} images, and a"
            f" search needs at least {MIN_IMAGES}: prepare again with another --out and a larger"
            f" --{config.split}-fraction, such as 0.3"
        )
    if found < config.num_images:
        report(f"only {found} {config.split} images are held out: judging by these, not by {config.num_images}")
        config = _with_images(config, found)
    if stage.sample is None:
        config = _with_rungs_that_can_rank(config, report)
    if stage.sample is None and (words := what_decides(config.objective, config.num_images)) is not None:
        report(words)
    if config.confirm_split is not None and num_held_out(stage, config.confirm_split) < MIN_IMAGES:
        report(
            f"warning: there are not {MIN_IMAGES} {config.confirm_split} images to confirm the winner on: it may win by"
            f" chance; prepare again with a larger --{config.confirm_split}-fraction"
        )
        config = override(config, confirm_split=None)
    return config


def _with_objective(stage: StageRun, config: SearchConfig) -> SearchConfig:
    """With the objective that a stage can be judged by; without warm starts, which are computed of images."""
    if stage.sample is None:
        is_of_fields = config.objective in SCORES
        require(not is_of_fields, f"objective: {config.objective} is of fields, and {stage.name} makes images")
        return config
    require(
        config.objective in ("fid", *SCORES),
        f"objective: {config.objective} is of images, and {stage.name} makes fields; take crps or energy",
    )
    objective = "crps" if config.objective == "fid" else config.objective
    return override(config, objective=objective, warm_starts=())


def num_held_out(stage: StageRun, split: str) -> int:
    """Images of a split of the stage's prepared data."""
    return SplitReader(stage.data, stage.config.data_stage, split).num_samples


def _with_images(config: SearchConfig, found: int) -> SearchConfig:
    """With so many images, or fewer where rungs need a multiple; without rungs if these would hold single images."""
    multiple = config.rung_factor ** (config.num_rungs - 1)
    if found < 2 * multiple:
        return override(config, num_images=found, num_rungs=1)
    return override(config, num_images=found // multiple * multiple)


def _with_rungs_that_can_rank(config: SearchConfig, report: Callable[[str], None]) -> SearchConfig:
    """With as many rungs as hold enough images for KID, by which the early ones are judged."""
    can = [rung for rung in config.rungs[:-1] if rung >= ENOUGH_FOR_KID]
    if len(can) == config.num_rungs - 1:
        return config
    report(
        f"num_rungs: {config.num_rungs} would judge by {config.rungs[0]} images first, which rank nothing: using"
        f" {len(can) + 1}, so that each has {ENOUGH_FOR_KID} or more"
    )
    return override(config, num_rungs=len(can) + 1)
