"""Loading and checking a network's weights in a safetensors file, including files with older parameter names."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, cast

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file  # pyright: ignore[reportUnknownVariableType]

from sr3core.errors import CheckpointError
from sr3core.networks.network import Network
from sr3core.networks.unet import UNet


def load_weights(network: Network, path: Path) -> None:
    """Load a safetensors file into a network, in place.

    Raises:
        CheckpointError: keys are missing, unexpected or of another shape; the message lists them.
    """
    check_weights(network, path)
    new_names = names_since_version_1(network)
    network.load_state_dict({new_names.get(name, name): value for name, value in load_file(path).items()})


def check_weights(network: Network, path: Path) -> None:
    """Compare a safetensors file's header with a network, which may be on the meta device. No weights are read.

    Raises:
        CheckpointError: the file is damaged, or keys are missing, unexpected or of another shape.
    """
    new_names = names_since_version_1(network)
    try:
        with cast("AbstractContextManager[Any]", safe_open(path, "pt")) as file:
            names: list[str] = list(file.keys())
            found = {new_names.get(name, name): tuple(file.get_slice(name).get_shape()) for name in names}
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{path} cannot be read: {error}; restore it, or, if its name is not UTF-8, rename its folder"
        ) from error
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


def names_since_version_1(network: Network) -> dict[str, str]:
    """Table of parameter names: in checkpoints of format version 1 -> now.

    Version 1 numbered the blocks in the present order and kept each block beside its attention:
    `decoder.13.block.conv1.weight` is now `decoder.64x64_block1.conv1.weight`. No name of one version denotes another
    parameter in the other version, so the table does not affect files with the present names.
    """
    table: dict[str, str] = {}
    if not isinstance(network, UNet):
        return table
    for part in ("encoder", "middle", "decoder"):
        for number, (place, block) in enumerate(network.get_submodule(part).named_children()):
            for name in block.state_dict():
                inside = name if name.startswith("attention.") else f"block.{name}"
                table[f"{part}.{number}.{inside}"] = f"{part}.{place}.{name}"
    return table
