"""Reading a file of weights that another program wrote, without executing what it holds, and telling what it is."""

import os
import pickle
import re
import struct
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from pipelines.registry.importing.published import Published
from sr3core.errors import CheckpointError
from sr3core.networks.building import build_network

_BUFFERS = {
    *("betas", "alphas_cumprod", "alphas_cumprod_prev", "sqrt_alphas_cumprod", "sqrt_one_minus_alphas_cumprod"),
    *("log_one_minus_alphas_cumprod", "sqrt_recip_alphas_cumprod", "sqrt_recipm1_alphas_cumprod"),
    *("posterior_variance", "posterior_log_variance_clipped", "posterior_mean_coef1", "posterior_mean_coef2"),
}
"""The noise schedule, which the re-implementation stores beside its weights."""
CLASSES = "label_emb.weight"
"""guided-diffusion's embedding of the classes."""
_NEEDS_CODE = re.compile("Unsupported (global|class)|GLOBAL|unrecognized function|Trying to instantiate")


def read_weights(path: Path) -> dict[str, Tensor]:
    """A file's parameters by their names; nothing in the file is executed.

    Raises:
        CheckpointError: there is no such file, it cannot be read, it needs code to be executed, or it holds no
            state_dict.
    """
    if not os.path.isfile(path):  # which, unlike Path.is_file, takes names that are too long
        raise CheckpointError(f"{path} is no file on this machine; name one with weights, such as I640000_E37_gen.pth")
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, OSError) as error:
        raise _unreadable(path, error) from error
    except (LookupError, AttributeError, TypeError, struct.error) as error:  # what a damaged pickle may end with
        raise _unreadable(path, error) from error
    return _checked(path, content)


def _unreadable(path: Path, error: Exception) -> CheckpointError:
    if isinstance(error, pickle.UnpicklingError) and _NEEDS_CODE.search(str(error)):
        return CheckpointError(
            f"{path} can only be read by executing code that it names, which import does not do; give its state_dict()"
            " alone: where you trust the file, load it in its own program and save that"
        )
    return CheckpointError(f"{path} is no file of weights that torch reads, or is damaged; take a fresh copy of it")


def _checked(path: Path, content: Any) -> dict[str, Tensor]:
    found = cast("dict[Any, Any]", content) if isinstance(content, dict) else {}
    if {"optimizer", "iter"} <= found.keys():
        raise CheckpointError(f"{path} holds the state of an optimiser; name the file beside it, *_gen.pth")
    if not found or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in found.items()):
        shown = ", ".join(map(str, list(found)[:3])) or type(content).__name__
        raise CheckpointError(f"{path} holds no state_dict, but {shown}; save the network's state_dict() alone")
    broken = next((key for key, value in found.items() if not bool(value.isfinite().all())), None)
    if broken is not None:
        raise CheckpointError(f"{path} is damaged: {broken} holds numbers that are not finite; take a fresh copy of it")
    return cast("dict[str, Tensor]", found)


def identify(path: Path, weights: Mapping[str, Tensor], known: Iterable[Published]) -> Published:
    """Which published network a file holds.

    Raises:
        CheckpointError: none, or one of another size: the message lists what does not fit the nearest one.
    """
    known = tuple(known)
    family = [each for each in known if each.marker in weights]
    if not family:
        names = "; ".join(dict.fromkeys(f"{each.files} of {each.source}" for each in known))
        shown = ", ".join(list(weights)[:3])
        raise CheckpointError(f"{path} holds no network that can be imported, but {shown}, ...; known are: {names}")
    problems = {each.stage.name: _differences(each, weights) for each in family}
    nearest = min(family, key=lambda each: len(problems[each.stage.name]))
    if wrong := problems[nearest.stage.name]:
        shown = "; ".join(wrong[:5]) + (f"; and {len(wrong) - 5} more" if len(wrong) > 5 else "")
        raise CheckpointError(
            f"{path} is not {nearest.files} for {nearest.stage.name} of {nearest.source}, which it resembles most:"
            f" {shown}; name that file"
        )
    _check_noise_schedule(path, weights, nearest)
    return nearest


def wanted_shapes(published: Published) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every parameter in the published file."""
    with torch.device("meta"):
        network = build_network(published.stage.model)
    shapes = {published.prefix + name: tuple(value.shape) for name, value in network.state_dict().items()}
    if published.stage.model.unet.architecture == "guided_diffusion":
        shapes[CLASSES] = (1000, 4 * published.stage.model.unet.base_channels)
    return shapes


def _differences(published: Published, weights: Mapping[str, Tensor]) -> list[str]:
    wanted = wanted_shapes(published)
    buffers = _BUFFERS if published.prefix else set[str]()
    missing = [f"{name} is missing" for name in wanted if name not in weights]
    unexpected = [f"{name} is unexpected" for name in weights if name not in wanted and name not in buffers]
    other = [
        f"{name} is {tuple(weights[name].shape)} instead of {shape}"
        for name, shape in wanted.items()
        if name in weights and tuple(weights[name].shape) != shape
    ]
    return other + missing + unexpected


def _check_noise_schedule(path: Path, weights: Mapping[str, Tensor], published: Published) -> None:
    noise, betas = published.stage.model.noise_schedule, weights.get("betas")
    if betas is None:
        return
    wanted = np.linspace(noise.beta_first, noise.beta_last, noise.num_steps)
    if len(betas) != noise.num_steps or not np.allclose(betas.double().numpy(), wanted, rtol=1e-4, atol=1e-9):
        raise CheckpointError(
            f"{path} was saved with another noise schedule than the published one, of {noise.num_steps} steps from"
            f" {noise.beta_first:g} to {noise.beta_last:g}: its own has {len(betas)} steps from {float(betas[0]):g} to"
            f" {float(betas[-1]):g}; take one that the authors published"
        )
