"""Weight files of published networks: finding, reading, identifying and checking them."""

import hashlib
import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file  # pyright: ignore[reportUnknownVariableType]
from torch import Tensor

from sr3core.errors import CheckpointError


def find_weights(variable: str, package: str, pattern: str) -> Path | None:
    """Find a weight file: the one named by an environment variable, else the one in an installed package.

    Args:
        variable: the environment variable.
        package: import name of the package; its code is not imported.
        pattern: glob pattern of the file in the package's folder.

    Returns:
        The file, not yet checked, or None if there is none.

    Raises:
        CheckpointError: the variable names a file that does not exist.
    """
    named = os.environ.get(variable)
    if named:
        if not Path(named).is_file():
            raise CheckpointError(f"{variable}={named}: no such file; correct or unset the variable")
        return Path(named)
    found = importlib.util.find_spec(package)
    for folder in (found.submodule_search_locations or ()) if found else ():
        if files := sorted(Path(folder).glob(pattern)):
            return files[0]
    return None


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file or a state_dict saved by torch.save, without running code from the file.

    Raises:
        CheckpointError: the file cannot be read or does not contain a state_dict.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CheckpointError(f"cannot read the weights {path}: {error.strerror or error}") from error
    except Exception as error:  # for damaged files the two readers raise errors without a common base
        raise CheckpointError(f"{path} is not a weight file: {str(error).splitlines()[0]}") from error
    weights = cast("dict[str, Any]", content) if isinstance(content, dict) else None
    if weights is None or not all(isinstance(value, Tensor) for value in weights.values()):
        raise CheckpointError(f"{path} holds no state_dict (name -> tensor); save one, or give a safetensors file")
    return weights


def fingerprint(weights: Mapping[str, Tensor]) -> str:
    """Compute the SHA-256 of tensors by name, shape and float32 values, independent of the file format."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        values = weights[name].detach().cpu().float().contiguous().numpy()
        digest.update(f"{name} {values.shape}\n".encode())
        digest.update(values.astype("<f4", copy=False).tobytes())
    return digest.hexdigest()


def misfits(weights: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]]) -> str:
    """Describe how tensors differ from the expected names and shapes: the first three problems, or "" if they fit."""
    problems = [f"missing {name}" for name in expected if name not in weights]
    problems += [f"unknown {name}" for name in weights if name not in expected]
    problems += [
        f"{name} is {tuple(weights[name].shape)}, expected {shape}"
        for name, shape in expected.items()
        if name in weights and tuple(weights[name].shape) != shape
    ]
    more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
    return "; ".join(problems[:3]) + more
