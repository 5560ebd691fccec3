"""Taking over another network's weights, as far as they fit: the start of a fine-tuning.

Blocks are matched by their level, not by the size in their names: a U-Net is fully convolutional, and one trained for
64x64 has the same blocks as one for 256x256.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file  # pyright: ignore[reportUnknownVariableType]
from torch import Tensor

from sr3core.errors import CheckpointError
from sr3core.networks.unet import UNet
from sr3core.networks.unet_weights import names_since_version_1

_PLACE = re.compile(r"^(encoder|middle|decoder)\.(\d+)x(\d+)_")
_NUM_NAMED = 5


@dataclass(frozen=True, slots=True)
class Transfer:
    """What a network took over from a file of weights."""

    whole: tuple[str, ...]
    """Weights taken over as they are."""
    in_part: tuple[str, ...]
    """Weights of which some channels were taken over."""
    anew: tuple[str, ...]
    """Weights that the file lacks or has in another shape, which stay as the network was initialised."""
    misfits: tuple[str, ...]
    """Everything that keeps the two networks from being the same, with both shapes."""

    def describe(self) -> str:
        """`238 of 240 weights; channels of conv_in.weight; anew: embed_class.weight`."""
        total = len(self.whole) + len(self.in_part) + len(self.anew)
        text = f"{len(self.whole)} of {total} weights"
        text += f"; channels of {_listed(self.in_part)}" if self.in_part else ""
        return text + (f"; anew: {_listed(self.anew)}" if self.anew else "")


def transfer_weights(network: UNet, path: Path, partial: bool = False) -> Transfer:
    """Take over the weights of a safetensors file, in place.

    Args:
        network: keeps its own values where nothing is taken over.
        path: the file.
        partial: take over what fits. conv_in is taken over by groups of channels: y_t's, which come last, and those of
            the condition; a new channel of the condition starts at zero, so that the network begins as it was. The
            image of a conv_out with or without a learned variance is taken over alike.

    Raises:
        CheckpointError: the file is damaged or holds values that are not finite; without partial, the weights are not
            those of such a network, and the message lists what differs; with it, the first layer does not
            fit, without which the others mean nothing.
    """
    state = network.state_dict()
    found = _read(network, path)
    channels = network.config.image_channels
    taken = {name: _taken(name, value, found.get(name), channels) for name, value in state.items()}
    transfer = _compare(state, found, taken)
    if transfer.misfits and not partial:
        raise CheckpointError(f"{path} does not fit the model: {_listed(transfer.misfits)}")
    if "conv_in.weight" in transfer.anew:
        raise CheckpointError(f"{path}: not even its first layer fits the model: {_listed(transfer.misfits)}")
    network.load_state_dict({name: state[name] if value is None else value for name, value in taken.items()})
    return transfer


def _compare(state: dict[str, Tensor], found: dict[str, Tensor], taken: dict[str, Tensor | None]) -> Transfer:
    whole = tuple(name for name, value in taken.items() if value is not None and value is found[name])
    anew = tuple(name for name, value in taken.items() if value is None)
    in_part = tuple(name for name in taken if name not in whole and name not in anew)
    misfits = [
        f"{name} is {tuple(found[name].shape) if name in found else 'missing'}, the model has {tuple(value.shape)}"
        for name, value in state.items()
        if name not in whole
    ]
    misfits += [f"{name} is not in the model" for name in found if name not in state]
    return Transfer(whole, in_part, anew, tuple(misfits))


def _read(network: UNet, path: Path) -> dict[str, Tensor]:
    """The file's weights, by the names that they have in the network."""
    try:
        loaded = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read as safetensors: {error}") from error
    wrong = [name for name, value in loaded.items() if not bool(torch.isfinite(value).all())]
    if wrong:
        raise CheckpointError(f"{path} holds values that are not finite, in {_listed(wrong)}; take another checkpoint")
    new_names = names_since_version_1(network)
    named = {new_names.get(name, name): value for name, value in loaded.items()}
    ours, theirs = _sizes(network.state_dict()), _sizes(named)
    return {_renamed(name, theirs, ours): value for name, value in named.items()}


def _sizes(weights: dict[str, Tensor]) -> list[tuple[int, int]]:
    """(height, width) of a U-Net's levels, the largest first."""
    places = (_PLACE.match(name) for name in weights)
    return sorted({(int(place[2]), int(place[3])) for place in places if place}, reverse=True)


def _renamed(name: str, theirs: list[tuple[int, int]], ours: list[tuple[int, int]]) -> str:
    """The name of the block at the same level of our network; the middle is its last level, whatever its number."""
    place = _PLACE.match(name)
    if place is None or not ours:
        return name
    level = theirs.index((int(place[2]), int(place[3])))
    if place[1] == "middle":
        level = len(ours) - 1
    if level >= len(ours):
        return name
    height, width = ours[level]
    return f"{place[1]}.{height}x{width}_{name[place.end() :]}"


def _taken(name: str, ours: Tensor, theirs: Tensor | None, channels: int) -> Tensor | None:
    """What becomes of a weight: theirs, ours with those channels of theirs that it has too, or None: it starts anew.

    channels is the number of our image's; of another number, what theirs mean is not known.
    """
    if theirs is None or theirs.shape == ours.shape:
        return theirs
    if name == "conv_in.weight" and ours.shape[0] == theirs.shape[0]:  # (width, condition and y_t, 3, 3)
        merged = torch.zeros_like(ours)
        merged[:, -channels:] = theirs[:, -channels:]
        shared = min(ours.shape[1], theirs.shape[1]) - channels
        merged[:, :shared] = theirs[:, :shared]
        return merged
    if name in ("conv_out.weight", "conv_out.bias") and ours.shape[1:] == theirs.shape[1:]:
        merged = ours.clone()  # (image, and variance if it is learned; ...)
        merged[:channels] = theirs[:channels]
        return merged
    return None


def _listed(items: tuple[str, ...] | list[str]) -> str:
    more = f"; and {len(items) - _NUM_NAMED} more" if len(items) > _NUM_NAMED else ""
    return "; ".join(items[:_NUM_NAMED]) + more
