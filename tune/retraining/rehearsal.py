"""`sr3 retrain --dry-run`: what a retraining would do, refused where the retraining itself would be."""

from collections.abc import Iterator

from pipelines.prepare.preparation import preview
from pipelines.registry.registry import Registry, find_model
from pipelines.runs.run_folder import local_path
from pipelines.storage.uris import absolute
from sr3core.errors import DataError
from tune.retraining.settings import MIN_COMPARED, RetrainConfig
from tune.retraining.state import check_config, read_states, unfinished
from tune.search.objective.held_out_images import MIN_IMAGES


def rehearse(config: RetrainConfig, fresh: bool = False) -> Iterator[str]:
    """What `retrain` would do, in lines; lists the source, writes nothing and needs no Ray.

    Raises:
        ConfigError, DataError, CheckpointError, StorageError: as `retrain` raises before it trains. Images that will be
            rejected are not known yet.
    """
    registry = Registry(absolute(config.registry))
    state = unfinished(read_states(local_path(config.work)))
    if state is not None and not fresh:
        check_config(state, config)
        yield f"would resume {state.folder}"
    text, counts = preview(config.prepare, add_new=True)
    yield text
    for stage, split, least in needed_images(config):
        refuse_too_few(f"{config.prepare.source}, prepared for {stage},", split, counts[split], least)
    stages = ", ".join(stage.name for stage in config.run_config.stages)
    promoted, _ = registry.promoted()
    if promoted is not None:
        find_model(promoted.uri)
    against = f"compare it with {promoted.name} of" if promoted else "promote it in"
    yield f"would train {stages} on {counts['train']} images, and {against} {config.registry}"


def check(config: RetrainConfig, fresh: bool = False) -> None:
    """Refuse what `retrain` would, before Ray starts; one that resumes needs neither the source nor the registry.

    Raises:
        ConfigError, DataError, CheckpointError, StorageError: as rehearse does.
    """
    state = unfinished(read_states(local_path(config.work)))
    if state is not None and not fresh:
        check_config(state, config)
    else:
        for _ in rehearse(config, fresh):
            pass


def needed_images(config: RetrainConfig) -> Iterator[tuple[str, str, int]]:
    """(prepared stage, held-out split, fewest images) of the comparison and of every search."""
    yield config.judged_stage, config.evaluate.split, MIN_COMPARED
    stages = {stage.name: stage.data_stage for stage in config.run_config.stages}
    for wanted in config.searches:
        yield stages[wanted.stage], wanted.split, MIN_IMAGES


def refuse_too_few(place: str, split: str, found: int, least: int) -> None:
    """Refuse too few held-out images.

    Raises:
        DataError: there are fewer than `least`.
    """
    if found < least:
        raise DataError(
            f"{place} holds {found} {split} images, and retraining needs at least {least}: set a larger"
            f" prepare.{split}_fraction, and another prepare.out"
        )
