"""A stage's checkpoints: written in the background, retained by rule, and found again after a crash."""

import errno
import logging
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from pipelines.runs.run_folder import StageRun
from pipelines.runtime.provenance import provenance
from pipelines.storage.leases.lease import Fence
from pipelines.training.worker_group import Team
from sr3core import strict_json
from sr3core.checkpoint import (
    CheckpointInfo,
    Snapshot,
    delete_checkpoint,
    delete_unfinished,
    list_checkpoints,
    load_moments,
    restore,
    save_checkpoint,
    take_snapshot,
)
from sr3core.config import to_dict
from sr3core.errors import CheckpointError, StorageError
from sr3core.training import TrainState

log = logging.getLogger(__name__)


class CheckpointWriter:
    """Writes a stage's checkpoints in a thread of worker 0; training waits only while the state is copied.

    Only one is written at a time: the next one waits for it. An error in the thread is raised by the next call.
    """

    def __init__(self, stage: StageRun, team: Team, fences: tuple[Fence, ...] = ()) -> None:
        self._stage, self._writes, self._fences = stage, team.rank == 0, fences
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None
        if self._writes:
            delete_unfinished(stage.checkpoints)

    def publish_metrics(self, *paths: Path) -> None:
        """Upload these files to the run's bucket, unless the thread is busy; does nothing for a run on a disk."""
        if self._writes and self._stage.bucket is not None and (self._pending is None or self._pending.done()):
            self.finish()
            self._pending = self._thread.submit(self._stage.bucket.push, *paths)

    def write(self, state: TrainState, held_out: dict[str, float]) -> None:
        """Copy the state and start writing it.

        Raises:
            LeaseLostError: another process has taken a lease under which this one writes; nothing is written.
            StorageError: the one before could not be written.
        """
        if not self._writes:
            return
        self.finish()
        for fence in self._fences:
            fence.check()
        self._pending = self._thread.submit(write_checkpoint, self._stage, take_snapshot(state), held_out)

    def finish(self) -> None:
        """Wait until the checkpoint being written is committed.

        Raises:
            StorageError: it could not be written.
        """
        if self._pending is not None:
            pending, self._pending = self._pending, None
            pending.result()


def write_checkpoint(stage: StageRun, snapshot: Snapshot, held_out: dict[str, float]) -> None:
    """Commit a checkpoint with its provenance, then delete those that the retention rules no longer keep.

    Raises:
        StorageError: the disk is full or refuses to write; earlier checkpoints are unchanged.
    """
    parents = strict_json.loads((stage.path.parent / "config.json").read_bytes())["data_fingerprints"]
    extra = {"validation_psnr": held_out.get("psnr"), "provenance": provenance(stage.config, parents)}
    if stage.sample is not None:
        extra["sample"] = to_dict(stage.sample)
    try:
        path = save_checkpoint(stage.checkpoints, snapshot, extra)
    except OSError as error:
        delete_unfinished(stage.checkpoints)
        remedy = "free some space, or lower keep_checkpoints" if error.errno == errno.ENOSPC else "fix that"
        raise StorageError(
            f"{stage.checkpoints}: step {snapshot.step} could not be saved ({error.strerror}); {remedy} and"
            " run the same command again: it resumes from the previous checkpoint"
        ) from error
    if stage.bucket is not None:
        stage.bucket.push_checkpoint(path)
        stage.bucket.push(stage.metrics)
    for info in superseded(stage):
        if stage.bucket is not None:
            stage.bucket.delete_checkpoint(info.path)
        delete_checkpoint(info.path)


def superseded(stage: StageRun) -> list[CheckpointInfo]:
    """Checkpoints to delete: not among the newest keep_checkpoints, no milestone, and not regression's best."""
    config, found = stage.config, list_checkpoints(stage.checkpoints)
    kept = {info.step for info in found[-config.keep_checkpoints :]} | {stage.weights.newest().step}
    if config.milestone_every is not None:
        kept |= {info.step for info in found if info.step % config.milestone_every == 0}
    return [info for info in found if info.step not in kept]


def steps_done(stage: StageRun) -> int:
    """The newest checkpoint's step; 0 without one."""
    found = list_checkpoints(stage.checkpoints)
    return found[-1].step if found else 0


def resume(stage: StageRun, state: TrainState, team: Team) -> None:
    """Load the newest intact checkpoint into every worker's state; damaged ones are logged and skipped.

    Worker 0 reads it and sends it to the others, so that one of 10 GB is not read, and its sums computed, by each.

    Raises:
        CheckpointError: there are checkpoints, but none is intact; training does not silently start over.
    """
    if not team.same(team.rank == 0 and _restore_newest(stage, state)):
        return
    _share(state, team)
    if state.step and team.rank == 0:  # at 0 it starts, from the weights of another training
        log.warning("%s: resumed at step %d", stage.name, state.step)


def _restore_newest(stage: StageRun, state: TrainState) -> bool:
    """Whether there is a checkpoint to resume from, which is then in `state`."""
    found = list_checkpoints(stage.checkpoints)
    for info in reversed(found):
        try:
            restore(stage.weights.fetch(info), state)
        except CheckpointError as error:
            log.error("%s", error)
            continue
        if info is not found[-1]:
            log.error("%s: falling back to the checkpoint of step %d", stage.name, info.step)
        return True
    if found:
        raise CheckpointError(
            f"{stage.checkpoints}: none of the {len(found)} checkpoints is intact; restore one from a backup, or start"
            " over with --fresh"
        )
    return False


def _share(state: TrainState, team: Team) -> None:
    """Send worker 0's state to the other workers, into theirs."""
    if team.world_size == 1:
        return
    moments = tree_map(_without_values, state.optimizer.state_dict()) if team.rank == 0 else None
    state.step, state.typical_norm, moments = team.same((state.step, state.typical_norm, moments))
    if team.rank != 0:  # an optimiser that has made no step has no moments yet
        load_moments(state.optimizer, tree_map(_with_memory, moments))
    networks = [network for network in (state.model, state.ema) if network is not None]
    weights = [weight for network in networks for weight in network.state_dict().values()]
    team.share([*weights, *filter(torch.is_tensor, tree_leaves(state.optimizer.state_dict()))])


def _without_values(leaf: Any) -> Any:
    return leaf.to("meta") if isinstance(leaf, Tensor) else leaf


def _with_memory(leaf: Any) -> Any:
    return torch.empty_like(leaf, device="cpu") if isinstance(leaf, Tensor) else leaf
