"""Starting stages from given weights: a checkpoint of step 0, and RUN/<stage>/start.json, which names the parent."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pipelines.runs.parent_weights import Parent
from pipelines.runs.run_folder import Run, StageRun, open_run, write_atomic
from pipelines.settings.train import RunConfig
from pipelines.storage.uris import exists, join
from pipelines.storage.versioned_json import JsonFormat
from sr3core import strict_json
from sr3core.checkpoint import delete_unfinished, list_checkpoints, warm_start
from sr3core.config import differences, scientific
from sr3core.errors import CheckpointError, ConfigError, StorageError
from sr3core.networks.unet import UNet
from sr3core.networks.weight_transfer import transfer_weights

_FORMAT = JsonFormat(
    title="start of a stage",
    version=1,
    name="sr3-start",
    if_damaged="repeat the training in another --out",
    if_other_version="repeat the training in another --out",
)


def starts_of(location: str) -> dict[str, dict[str, Any]]:
    """What the stages of a run were started from, by their names; empty if there is no run yet."""
    if not exists(join(location, "config.json")):
        return {}
    found = {stage.name: stage.path / "start.json" for stage in open_run(location).stages}
    return {name: _FORMAT.read(path) for name, path in found.items() if path.is_file()}


def as_started(config: RunConfig, starts: Mapping[str, dict[str, Any]]) -> RunConfig:
    """The run, whose stages name the weights that they were started from, wherever these are now."""
    stages = [
        replace(stage, initial_weights=starts[stage.name]["sha256"]) if stage.name in starts else stage
        for stage in config.stages
    ]
    return replace(config, stages=tuple(stages))


def check_fit(config: RunConfig, parents: Mapping[str, Parent], partial: bool) -> None:
    """Refuse weights that are damaged or do not fit, before anything is written or deleted.

    Raises:
        CheckpointError: names the stage and what does not fit.
    """
    for stage in config.stages:
        if stage.name in parents:
            try:
                transfer_weights(UNet(stage.model.unet), parents[stage.name].weights, partial)
            except CheckpointError as error:
                remedy = "" if partial else "; --partial takes over what fits"
                raise CheckpointError(f"from: {stage.name}: {error}{remedy}") from error


def start_stages(run: Run, parents: Mapping[str, Parent], partial: bool) -> Iterator[str]:
    """Write the first checkpoint of every stage that has none and a parent; yields a line about each.

    Args:
        run: the run, whose configuration names the weights.
        parents: the weights, by the stages' names.
        partial: accept weights of another network, and take over what fits.

    Raises:
        CheckpointError: the weights do not fit; check_fit finds this earlier.
        StorageError: the checkpoint cannot be written.
    """
    for stage in run.stages:
        if stage.name in parents and not list_checkpoints(stage.checkpoints):
            yield _start(stage, parents[stage.name], partial)


def check_started(stages: Sequence[StageRun]) -> None:
    """Refuse to train stages from random weights whose configuration names others.

    Raises:
        ConfigError: names the first such stage.
    """
    for stage in stages:
        if stage.config.initial_weights and not list_checkpoints(stage.checkpoints):
            raise ConfigError(
                f"initial_weights: {stage.name} starts from weights of SHA-256 {stage.config.initial_weights[:16]}…;"
                " say where they are: --from PLACE"
            )


def _start(stage: StageRun, parent: Parent, partial: bool) -> str:
    settings = stage.config
    try:
        transfer = warm_start(
            stage.checkpoints,
            settings.model,
            settings.optimizer,
            settings.seed,
            parent.weights,
            partial,
            {"parent": parent.provenance()},
        )
    except OSError as error:
        delete_unfinished(stage.checkpoints)
        raise StorageError(
            f"{stage.checkpoints}: the first checkpoint could not be saved ({error.strerror})"
        ) from error
    content = {**parent.provenance(), "anew": transfer.anew, "in_part": transfer.in_part}
    path = stage.path / "start.json"
    write_atomic(path, _FORMAT.encode(strict_json.plain(content)).decode())
    if stage.bucket is not None:
        (started,) = list_checkpoints(stage.checkpoints)
        stage.bucket.push_checkpoint(started.path)
        stage.bucket.push(path)
    return "; ".join([f"{stage.name}: starts from {parent.describe()}", *_remarks(stage, parent, transfer.describe())])


def _remarks(stage: StageRun, parent: Parent, taken: str) -> Iterator[str]:
    """What was taken over, and in what the parent's model is another one, whose weights may mean other things."""
    yield taken
    if parent.config is not None:
        models = (strict_json.plain(scientific(config.model)) for config in (parent.config, stage.config))
        if changed := differences(*models):
            yield f"its model differs: {', '.join(changed)}"
