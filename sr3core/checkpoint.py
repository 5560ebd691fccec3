"""The checkpoint format: a folder of safetensors and JSON files, written atomically and verified by checksums.

    step-00001000/  model.safetensors  ema.safetensors  optimizer.pt  state.json

state.json is written last and holds the SHA-256 of the other files. The folder is renamed to its final name only after
all files have been flushed to disk.
"""

import errno
import hashlib
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file  # pyright: ignore[reportUnknownVariableType]
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from sr3core import strict_json
from sr3core.errors import CheckpointError
from sr3core.hyperparameters import ModelConfig, OptimizerConfig
from sr3core.networks.unet_weights import load_weights
from sr3core.networks.weight_transfer import Transfer, transfer_weights
from sr3core.training import TrainState, create_state

CHECKPOINT_FORMAT_VERSION = 2
"""Version 1 can still be read. It numbered the U-Net's blocks (networks/unet_weights.py) and stored the number of
updates of the average, which equals the number of steps. Adam's moments have no names; the order of the parameters,
which has not changed, identifies them."""
_NAME = re.compile(r"step-(\d{8,})$")
_UNFINISHED = ".writing-"
_FILES = ("model.safetensors", "ema.safetensors", "optimizer.pt")


@dataclass(frozen=True, slots=True)
class CheckpointInfo:
    """The content of a checkpoint's state.json."""

    path: Path
    step: int
    state: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A copy of a training state in host memory; further training does not change it."""

    step: int
    model: dict[str, Tensor]
    ema: dict[str, Tensor] | None
    optimizer: dict[str, Any]
    typical_norm: float | None


def take_snapshot(state: TrainState) -> Snapshot:
    """Copy a state to host memory, so that a checkpoint can be written while training continues."""
    return Snapshot(
        step=state.step,
        model=_copied(state.model.state_dict()),
        ema=_copied(state.ema.state_dict()) if state.ema is not None else None,
        optimizer=_copied(state.optimizer.state_dict()),
        typical_norm=float(state.typical_norm) if state.typical_norm is not None else None,
    )


def save_checkpoint(directory: Path, snapshot: Snapshot, extra: dict[str, Any]) -> Path:
    """Write a checkpoint into directory, atomically, and return its folder.

    Args:
        directory: contains one folder per checkpoint.
        snapshot: the state to save.
        extra: JSON data to add to state.json, such as configuration and provenance.

    Raises:
        OSError: the disk is full or the write fails.
    """
    final = directory / f"step-{snapshot.step:08d}"
    temporary = directory / f"{_UNFINISHED}{final.name}-{os.getpid()}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    _check_space(directory, snapshot)
    try:
        save_file(_contiguous(snapshot.model), temporary / "model.safetensors")
        if snapshot.ema is not None:
            save_file(_contiguous(snapshot.ema), temporary / "ema.safetensors")
        torch.save(snapshot.optimizer, temporary / "optimizer.pt")
    except (SafetensorError, RuntimeError) as error:  # how these writers report disk errors
        raise OSError(errno.EIO, str(error).splitlines()[0]) from error
    content = {
        "format_version": CHECKPOINT_FORMAT_VERSION,
        "step": snapshot.step,
        "typical_norm": snapshot.typical_norm,
        "sha256": {name: sha256_of(temporary / name) for name in _FILES if (temporary / name).exists()},
        **extra,
    }
    (temporary / "state.json").write_text(strict_json.dumps(content, indent=1), encoding="utf-8")
    _sync(temporary)
    if final.exists():  # the same step again, after resuming from an older checkpoint
        delete_checkpoint(final)
    temporary.rename(final)
    _sync_folder(directory)
    return final


def _check_space(directory: Path, snapshot: Snapshot) -> None:
    tensors = [
        leaf for leaf in tree_leaves((snapshot.model, snapshot.ema, snapshot.optimizer)) if isinstance(leaf, Tensor)
    ]
    if shutil.disk_usage(directory).free < sum(tensor.nbytes for tensor in tensors):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def delete_checkpoint(path: Path) -> None:
    """Delete a checkpoint's folder. state.json is deleted first, so that a half-deleted folder is not a checkpoint."""
    (path / "state.json").unlink(missing_ok=True)
    shutil.rmtree(path)


def delete_unfinished(directory: Path) -> None:
    """Delete the unfinished folders of writers that were killed."""
    for path in directory.glob(f"{_UNFINISHED}*"):
        shutil.rmtree(path, ignore_errors=True)


def list_checkpoints(directory: Path) -> list[CheckpointInfo]:
    """List the committed checkpoints in directory, oldest first; unfinished ones are left out."""
    found: list[CheckpointInfo] = []
    for path in directory.glob("step-*") if directory.is_dir() else ():
        if _NAME.match(path.name) and is_checkpoint(path):
            found.append(read_info(path))
    return sorted(found, key=lambda info: info.step)


def is_checkpoint(path: Path) -> bool:
    """Whether a folder is a complete checkpoint."""
    return (path / "state.json").is_file()


_IF_DAMAGED = "restore it, or delete this checkpoint's folder"


def read_info(path: Path) -> CheckpointInfo:
    """Read and check a checkpoint's state.json.

    Raises:
        CheckpointError: it is missing, is not valid JSON, or has an unsupported format version.
    """
    try:
        found: Any = strict_json.loads((path / "state.json").read_bytes())
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is not a checkpoint: it has no state.json") from error
    except ValueError as error:
        raise CheckpointError(f"{path}/state.json is damaged: {error}; {_IF_DAMAGED}") from error
    state = cast("dict[str, Any]", found) if isinstance(found, dict) else {}
    version = state.get("format_version")
    if version not in (1, CHECKPOINT_FORMAT_VERSION):
        raise CheckpointError(
            f"{path} has checkpoint format version {version!r}, this program reads 1 and {CHECKPOINT_FORMAT_VERSION};"
            " use the sr3 that wrote it, or another checkpoint"
        )
    sums = state.get("sha256")
    if not isinstance(state.get("step"), int) or not isinstance(sums, dict):
        raise CheckpointError(f"{path}/state.json is damaged: it lacks the step or the files' sums; {_IF_DAMAGED}")
    return CheckpointInfo(path, state["step"], state)


def verify(info: CheckpointInfo) -> None:
    """Compare the SHA-256 of every file with the one in state.json.

    Raises:
        CheckpointError: a file is missing or differs.
    """
    for name, expected in info.state["sha256"].items():
        path = info.path / name
        if not path.is_file():
            raise CheckpointError(
                f"{path} is missing; restore it or delete {info.path} to use the checkpoint before it"
            )
        if sha256_of(path) != expected:
            raise CheckpointError(f"{path} is damaged: its sha256 is not the recorded one; delete {info.path}")


def restore(info: CheckpointInfo, state: TrainState) -> None:
    """Verify a checkpoint, and load it into `state`, in place.

    Raises:
        CheckpointError: the checkpoint is damaged or does not fit the model; of `state` parts may be loaded.
    """
    verify(info)
    load_weights(state.model, info.path / "model.safetensors")
    if state.ema is not None:
        if not (info.path / "ema.safetensors").is_file():
            raise CheckpointError(f"{info.path} holds no average of the weights, but ema_decay requires one")
        load_weights(state.ema, info.path / "ema.safetensors")
    load_moments(state.optimizer, torch.load(info.path / "optimizer.pt", weights_only=True, map_location="cpu"))
    typical = info.state.get("typical_norm")
    state.typical_norm = torch.tensor(typical) if typical is not None else None
    state.step = info.step


def sampling_weights(info: CheckpointInfo) -> Path:
    """Path of the weights to sample with: the average if there is one, else the model's own weights."""
    average = info.path / "ema.safetensors"
    return average if average.is_file() else info.path / "model.safetensors"


def warm_start(
    directory: Path,
    model: ModelConfig,
    optimizer: OptimizerConfig,
    seed: int,
    source: Path,
    partial: bool = False,
    extra: dict[str, Any] | None = None,
) -> Transfer:
    """Write a checkpoint of step 0 with given weights for the network and its average, and a new optimiser state.

    The same arguments give the same weights: what the source lacks is initialised by the seed.

    Args:
        directory: a stage's checkpoint directory, still empty.
        model: the model to train.
        optimizer: the optimiser's settings.
        seed: the training's seed.
        source: a safetensors file with the weights of such a network.
        partial: accept another network's weights, and take over what fits.
        extra: JSON data to add to state.json.

    Raises:
        CheckpointError: the weights are damaged, or do not fit the network.
        OSError: the disk is full or the write fails.
    """
    state = create_state(model, optimizer, seed)
    transfer = transfer_weights(state.model, source, partial)
    if state.ema is not None:
        state.ema.load_state_dict(state.model.state_dict())
    save_checkpoint(directory, take_snapshot(state), {"warm_start": sha256_of(source), **(extra or {})})
    return transfer


def load_moments(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
    """Load the moments in the state_dict of an optimiser, but not its settings.

    How the update is computed (fused or not, on which device) is this program's choice. A fused update reads moments in
    the memory order of the weights, so the moments get the weights' memory layout.
    """
    optimizer.load_state_dict({**saved, "param_groups": optimizer.state_dict()["param_groups"]})
    for parameter, entry in optimizer.state.items():
        for name in ("exp_avg", "exp_avg_sq"):
            entry[name] = torch.empty_like(parameter).copy_(entry[name])


def _copied(tree: Any) -> Any:
    """The same tree with its tensors copied to host memory."""

    def copy(leaf: Any) -> Any:
        return leaf.detach().to("cpu", copy=True) if isinstance(leaf, Tensor) else leaf

    return tree_map(copy, tree)


def _contiguous(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.contiguous() for name, value in weights.items()}


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(folder: Path) -> None:
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
