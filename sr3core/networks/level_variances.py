"""The variance of what reaches each level of a U-Net: a level that gets next to nothing learns next to nothing."""

from collections.abc import Callable, Generator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from sr3core.networks.unet import UNet


@contextmanager
def level_variances(network: UNet) -> Generator[dict[str, Tensor]]:
    """Measure what the encoder's levels and the middle end with, in each forward pass within this context.

    Yields:
        The variances of the last pass over all images, channels and pixels, by the names of the levels, fine to coarse:
        {"64x64": ..., "middle": ...}; each () float32 on the network's device.
    """
    found: dict[str, Tensor] = {}

    def measuring(name: str) -> Callable[[nn.Module, tuple[object, ...], Tensor], None]:
        def measure(_: nn.Module, inputs: tuple[object, ...], output: Tensor) -> None:
            found[name] = torch.var(output.detach().float(), correction=0)

        return measure

    last = {place.partition("_")[0]: block for place, block in network.encoder.named_children()}
    *_, last["middle"] = network.middle.children()
    hooks = [block.register_forward_hook(measuring(name)) for name, block in last.items()]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()
