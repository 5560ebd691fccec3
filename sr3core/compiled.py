"""torch.compile with a way back: a network that cannot be compiled here runs as it is."""

import logging
from typing import Any

import torch
from torch import Tensor, nn

log = logging.getLogger(__name__)


class Compiled(nn.Module):
    """A module that torch.compile has made faster; where compiling fails, the module itself, and a warning.

    Compiled kernels are kept on the disk by torch (TORCHINDUCTOR_CACHE_DIR), so a second process starts faster.

    Args:
        network: what to compile; its weights stay where they are.
        mode: torch.compile's; "reduce-overhead" records CUDA graphs, which pays for small batches.
    """

    def __init__(self, network: nn.Module, mode: str = "default") -> None:
        super().__init__()
        self.network = network
        self._call: Any = torch.compile(network, mode=mode)
        self._has_run = False

    def forward(self, *inputs: Any, **named: Any) -> Tensor:
        """As the network's."""
        if self._has_run:
            return self._call(*inputs, **named)
        try:
            output = self._call(*inputs, **named)
        except RuntimeError as error:  # the base of the compiler's; if the inputs are wrong, the next line says so
            output = self.network(*inputs, **named)
            log.warning("torch.compile failed, going on without it: %s", str(error).strip().splitlines()[0])
            self._call = self.network
        self._has_run = True
        return output
