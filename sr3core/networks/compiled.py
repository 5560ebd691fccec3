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
        self._has_graphs = mode == "reduce-overhead"
        self._compiled_for: set[tuple[torch.Size, ...]] = set()

    def forward(self, *inputs: Any, **named: Any) -> Tensor:
        """As the network's."""
        shapes = tuple(value.shape for value in (*inputs, *named.values()) if isinstance(value, Tensor))
        if shapes in self._compiled_for or self._call is self.network:
            return self._run(*inputs, **named)
        try:
            output = self._run(*inputs, **named)
        except RuntimeError as error:  # the base of the compiler's; if the inputs are wrong, the next line says so
            output = self.network(*inputs, **named)
            log.warning("torch.compile failed, going on without it: %s", str(error).strip().splitlines()[0])
            self._call, self._has_graphs = self.network, False
        self._compiled_for.add(shapes)
        return output

    def _run(self, *inputs: Any, **named: Any) -> Tensor:
        if not self._has_graphs:
            return self._call(*inputs, **named)
        # A graph writes to the same memory every time, and a sampler may still need what was there.
        torch.compiler.cudagraph_mark_step_begin()
        return self._call(*inputs, **named).clone()
