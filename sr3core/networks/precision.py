"""Precision of a network's arithmetic in training and sampling: what runs in bfloat16, and what must not."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn


class InPrecision(nn.Module):
    """A network that computes under autocast if the precision is bfloat16, and without autocast otherwise."""

    def __init__(self, network: nn.Module, precision: str) -> None:
        super().__init__()
        self.network, self.precision = network, precision

    def forward(self, x_up: Tensor | None, y_t: Tensor, gamma: Tensor, classes: Tensor | None = None) -> Tensor:
        """Call the network (UNet.forward)."""
        with torch.autocast(y_t.device.type, torch.bfloat16) if self.precision == "bfloat16" else nullcontext():
            return self.network(x_up, y_t, gamma, classes)


def in_float32(device: torch.device) -> AbstractContextManager[object]:
    """Context without autocast, for the few layers where rounding matters and cost does not."""
    # The meta device, used to count operations, does not support autocast.
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)
