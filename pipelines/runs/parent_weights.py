"""Finding the weights that a training starts from: a stage of a run, a checkpoint's folder, or a file of weights."""

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote
from typing import Any

from pipelines.runs.hub_models import is_read_only
from pipelines.runs.run_folder import StageRun, local_path, open_run
from pipelines.settings.train import RunConfig, TrainConfig
from pipelines.storage.uris import exists, is_remote, join, name_of, parent_of
from sr3core.config import fingerprint, override
from sr3core.errors import ConfigError, DataError


@dataclass(frozen=True, slots=True)
class ParentPlace:
    """Where a stage's first weights are."""

    given: str
    """The place as it was named."""
    location: str
    """The place itself, an absolute path or a URI: a run folder, RUN/STAGE, a checkpoint's folder or a file."""
    stage: str | None = None
    """The only stage that starts from there; None for every stage that it holds."""


@dataclass(frozen=True, slots=True)
class Parent:
    """The weights that a stage starts from."""

    given: str
    """The place as it was named."""
    location: str
    """The run, checkpoint's folder or file."""
    stage: str | None
    """The run's stage; None for weights outside a run."""
    step: int | None
    """Its step; None if it is not known."""
    sha256: str
    """SHA-256 of the file of weights."""
    fingerprint: str | None
    """Fingerprint of the parent stage's configuration; None if it is not known."""
    weights: Path
    """The file of weights: the average, if there is one."""
    config: TrainConfig | None
    """The parent stage's configuration; None if it is not known."""

    def describe(self) -> str:
        """`runs/faces, stage 64-256, step 2000`."""
        stage = f", stage {self.stage}" if self.stage else ""
        return f"{self.location}{stage}" + ("" if self.step is None else f", step {self.step}")

    def provenance(self) -> dict[str, Any]:
        """Where the weights come from, as JSON types."""
        names = ("given", "location", "stage", "step", "sha256", "fingerprint")
        return {name: getattr(self, name) for name in names}


def find_parents(config: RunConfig, places: Sequence[ParentPlace], begun: Collection[str] = ()) -> dict[str, Parent]:
    """The weights that each stage starts from, by the stages' names; those without are left out.

    Args:
        config: the run.
        places: where weights are.
        begun: stages that have started already, for which nothing is read.

    Raises:
        ConfigError: a place is for a stage that the run does not have, or has nothing for one of its stages.
        DataError: a place is neither a run, a checkpoint's folder nor a file.
        CheckpointError: the weights are missing or damaged.
    """
    names = [stage.name for stage in config.stages]
    found: dict[str, Parent] = {}
    for place in places:
        wanted = [place.stage] if place.stage else [name for name in names if not _named(places, name)]
        if not wanted:
            raise ConfigError(f"from: {place.given} is for no stage: each has a place of its own")
        for name in wanted:
            if name in found:
                raise ConfigError(f"from: {name} has two places, {found[name].given} and {place.given}; keep one")
            if name not in begun:
                found[name] = _read(place, name, alone=len(wanted) == 1)
    return found


def with_initial_weights(config: RunConfig, parents: dict[str, Parent]) -> RunConfig:
    """The run, whose stages name the weights that they start from, and keep the parent's scale of residuals.

    The scale is the unit in which a network has learned to draw; another would change what its weights say.
    """
    stages = [_started(stage, parents[stage.name]) if stage.name in parents else stage for stage in config.stages]
    return replace(config, stages=tuple(stages))


def _started(stage: TrainConfig, parent: Parent) -> TrainConfig:
    stage = replace(stage, initial_weights=parent.sha256)
    theirs = parent.config.model.objective if parent.config else None
    ours = stage.model.objective
    if theirs is None or ours.residual_scale or ours.residual != theirs.residual:
        return stage
    return override(stage, model__objective__residual_scale=theirs.residual_scale)


def _named(places: Sequence[ParentPlace], stage: str) -> bool:
    return any(place.stage == stage for place in places)


def _read(place: ParentPlace, name: str, alone: bool) -> Parent:
    """The weights for the stage of this name; alone: it is the only one that starts from the place."""
    location = place.location
    if is_read_only(location) or exists(join(location, "config.json")):
        return _of_stage(place, _stage_of(place, location, name, alone))
    if exists(join(parent_of(location), "config.json")):
        return _of_stage(place, open_run(parent_of(location)).stage(name_of(location)))
    if is_remote(location):
        raise DataError(
            f"from: {place.given} is no run and no registry; of a checkpoint in a bucket, download the weights"
        )
    path = local_path(location)
    if (path / "state.json").is_file():
        return _of_checkpoint(place, path)
    if path.is_file():
        return Parent(place.given, location, None, None, _sha256(path), None, path, None)
    what = "holds neither config.json nor state.json" if path.is_dir() else "does not exist"
    raise DataError(
        f"from: {place.given} {what}; name a run, a registry, RUN/STAGE, a checkpoint's folder or a safetensors file"
    )


def _stage_of(place: ParentPlace, location: str, name: str, alone: bool) -> StageRun:
    """The stage of that name; where only one starts from the run and it has one stage, that one."""
    run = open_run(location)
    there = {stage.name: stage for stage in run.stages}
    if name in there:
        return there[name]
    if alone and len(there) == 1:
        return run.stages[0]
    first = next(iter(there))
    some, other = quote(f"{first}={place.given}"), quote(f"{name}={join(place.given, first)}")
    raise ConfigError(
        f"from: {place.given} has no stage {name}, but {', '.join(there)}; name the stages that start from it, such as"
        f" `--from {some}`, or `--from {other}` for another's weights"
    )


def _of_stage(place: ParentPlace, stage: StageRun) -> Parent:
    from sr3core.checkpoint import sampling_weights, verify

    info = stage.weights.fetch(stage.weights.newest())
    verify(info)
    weights = sampling_weights(info)
    return Parent(
        given=place.given,
        location=stage.location,
        stage=stage.name,
        step=info.step,
        sha256=info.state["sha256"][weights.name],
        fingerprint=fingerprint(stage.config),
        weights=weights,
        config=stage.config,
    )


def _of_checkpoint(place: ParentPlace, path: Path) -> Parent:
    from sr3core.checkpoint import read_info, sampling_weights, verify

    info = read_info(path)
    verify(info)
    weights = sampling_weights(info)
    known = info.state.get("provenance", {}).get("fingerprint")
    return Parent(place.given, str(path), None, info.step, info.state["sha256"][weights.name], known, weights, None)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
