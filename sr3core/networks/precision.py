"""Precision of a network's arithmetic, for training and for sampling: what runs in bfloat16, and what must not."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn


class InPrecision(nn.Module):
    """A network that computes under autocast to bfloat16, or as it is for any other precision."""

    def __init__(self, network: nn.Module, precision: str) -> None:
        super().__init__()
        self.network, self.precision = network, precision

    def forward(self, x_up: Tensor | None, y_t: Tensor, gamma: Tensor, classes: Tensor | None = None) -> Tensor:
        """As the network's."""
        with torch.autocast(y_t.device.type, torch.bfloat16) if self.precision == "bfloat16" else nullcontext():
            return self.network(x_up, y_t, gamma, classes)


def in_float32(device: torch.device) -> AbstractContextManager[object]:
    """No autocast in here, for the few layers whose rounding matters and whose cost does not."""
    # The meta device, where operations are only counted, knows no autocast.
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)
