"""The checkpoint format: a folder of safetensors and JSON, whole and checked, or not there at all.

    step-00001000/  model.safetensors  ema.safetensors  optimizer.pt  state.json

state.json is written last and holds the sha256 of the others; the folder gets its name only when all are on the disk.
"""

import hashlib
import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sr3core.errors import CheckpointError
from sr3core.training import TrainState

CHECKPOINT_FORMAT_VERSION = 1
_NAME = re.compile(r"step-(\d{8,})$")
_FILES = ("model.safetensors", "ema.safetensors", "optimizer.pt")


@dataclass(frozen=True, slots=True)
class CheckpointInfo:
    """What state.json says."""

    path: Path
    step: int
    state: dict[str, Any]


def save_checkpoint(directory: Path, state: TrainState, extra: dict[str, Any]) -> Path:
    """Write a checkpoint of `state` below directory, atomically, and return its folder.

    Args:
        directory: holds one folder a checkpoint.
        state: what to save.
        extra: JSON data to keep beside it: configuration, provenance.
    """
    final = directory / f"step-{state.step:08d}"
    temporary = directory / f".writing-{final.name}-{os.getpid()}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    save_file(_contiguous(state.model), temporary / "model.safetensors")
    if state.ema is not None:
        save_file(_contiguous(state.ema.module), temporary / "ema.safetensors")
    averaged = int(state.ema.n_averaged) if state.ema is not None else 0
    torch.save(state.optimizer.state_dict(), temporary / "optimizer.pt")
    sums = {name: _sha256(temporary / name) for name in _FILES if (temporary / name).exists()}
    content = {
        "format_version": CHECKPOINT_FORMAT_VERSION,
        "step": state.step,
        "ema_updates": averaged,
        "sha256": sums,
        **extra,
    }
    (temporary / "state.json").write_text(json.dumps(content, indent=1))
    _sync(temporary)
    if final.exists():  # the same step again, after a resume from an older one
        shutil.rmtree(final)
    temporary.rename(final)
    _sync_folder(directory)
    return final


def list_checkpoints(directory: Path) -> list[CheckpointInfo]:
    """The committed checkpoints below directory, oldest first; unfinished ones are not among them."""
    found = []
    for path in directory.glob("step-*") if directory.is_dir() else ():
        if _NAME.match(path.name) and (path / "state.json").is_file():
            found.append(read_info(path))
    return sorted(found, key=lambda info: info.step)


def read_info(path: Path) -> CheckpointInfo:
    """Read and check a checkpoint's state.json.

    Raises:
        CheckpointError: it is missing, not JSON, or of another format version.
    """
    try:
        state = json.loads((path / "state.json").read_text())
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is no checkpoint: it has no state.json") from error
    except ValueError as error:
        raise CheckpointError(f"{path}/state.json is damaged: {error}") from error
    version = state.get("format_version")
    if version != CHECKPOINT_FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has checkpoint format version {version!r}, this program reads {CHECKPOINT_FORMAT_VERSION}"
        )
    return CheckpointInfo(path, state["step"], state)


def verify(info: CheckpointInfo) -> None:
    """Compare every file's sha256 with state.json.

    Raises:
        CheckpointError: a file is missing or differs.
    """
    for name, expected in info.state["sha256"].items():
        path = info.path / name
        if not path.is_file():
            raise CheckpointError(
                f"{path} is missing; restore it or delete {info.path} to use the checkpoint before it"
            )
        if _sha256(path) != expected:
            raise CheckpointError(f"{path} is damaged: its sha256 is not the recorded one; delete {info.path}")


def restore(info: CheckpointInfo, state: TrainState) -> None:
    """Load a verified checkpoint into `state`, in place.

    Raises:
        CheckpointError: it is damaged or does not fit the model.
    """
    verify(info)
    load_weights(state.model, info.path / "model.safetensors")
    if state.ema is not None:
        if not (info.path / "ema.safetensors").is_file():
            raise CheckpointError(f"{info.path} holds no average of the weights, but ema_decay asks for one")
        load_weights(state.ema.module, info.path / "ema.safetensors")
        state.ema.n_averaged.fill_(info.state["ema_updates"])
    optimizer = torch.load(info.path / "optimizer.pt", weights_only=True, map_location="cpu")
    state.optimizer.load_state_dict(optimizer)
    state.step = info.step


def sampling_weights(info: CheckpointInfo) -> Path:
    """The weights to sample with: the average where there is one."""
    average = info.path / "ema.safetensors"
    return average if average.is_file() else info.path / "model.safetensors"


def load_weights(network: nn.Module, path: Path) -> None:
    """Load a safetensors file into a network, in place.

    Raises:
        CheckpointError: names keys that are missing, unexpected or of another shape.
    """
    check_weights(network, path)
    network.load_state_dict(load_file(path))


def check_weights(network: nn.Module, path: Path) -> None:
    """Compare a safetensors file's header with a network, which may be on the meta device; reads no weight.

    Raises:
        CheckpointError: the file is damaged, or names keys that are missing, unexpected or of another shape.
    """
    try:
        with safe_open(path, "pt") as file:
            found = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118 (no dict)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    wanted = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    problems = [f"{key} is missing" for key in wanted if key not in found]
    problems += [f"{key} is unexpected" for key in found if key not in wanted]
    problems += [
        f"{key} is {found[key]}, the model has {wanted[key]}"
        for key in wanted
        if key in found and found[key] != wanted[key]
    ]
    if problems:
        shown = "; ".join(problems[:5]) + (f"; and {len(problems) - 5} more" if len(problems) > 5 else "")
        raise CheckpointError(f"{path} does not fit the model: {shown}")


def _contiguous(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().contiguous().cpu() for name, value in network.state_dict().items()}


def _sha256(path: Path) -> str:
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
