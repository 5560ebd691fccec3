"""Execution of a network in training and in sampling: precision and torch.compile.

The compiler is optional: a network that cannot be compiled runs uncompiled.
"""

import logging
from typing import Any, Literal

import torch
from torch import Tensor, nn

from sr3core.hyperparameters import Precision
from sr3core.networks.precision import InPrecision

log = logging.getLogger(__name__)

CompileMode = Literal["default", "reduce-overhead"]
"""torch.compile's mode; reduce-overhead records CUDA graphs, which pays for small batches."""


def accelerate(network: nn.Module, precision: Precision, compile_mode: CompileMode | None) -> nn.Module:
    """Wrap a network so that it computes in a precision, compiled unless compile_mode is None; weights are shared."""
    in_precision = InPrecision(network, precision)
    return in_precision if compile_mode is None else Compiled(in_precision, compile_mode)


class Compiled(nn.Module):
    """A module compiled by torch.compile. If compilation fails, it logs a warning and runs the module uncompiled.

    torch caches compiled kernels on disk (TORCHINDUCTOR_CACHE_DIR), so a second process starts faster.

    Args:
        network: the module to compile; its weights are shared.
        mode: mode of torch.compile.
    """

    def __init__(self, network: nn.Module, mode: CompileMode = "default") -> None:
        super().__init__()
        self.network = network
        self._call: Any = torch.compile(network, mode=mode)  # pyright: ignore[reportUnknownMemberType]
        self._has_graphs = mode == "reduce-overhead"
        self._compiled_for: set[tuple[torch.Size, ...]] = set()

    def forward(self, *inputs: Any, **named: Any) -> Tensor:
        """Call the network with the same arguments."""
        shapes = tuple(value.shape for value in (*inputs, *named.values()) if isinstance(value, Tensor))
        if shapes in self._compiled_for or self._call is self.network:
            return self._run(*inputs, **named)
        try:
            output = self._run(*inputs, **named)
        except RuntimeError as error:  # base class of the compiler's errors; wrong inputs raise again in the next line
            output = self.network(*inputs, **named)
            reason = " ".join(str(error).split("\n\n")[0].split())  # the compiler's own message takes two lines
            log.warning("torch.compile failed, continuing without it: %s", reason)
            self._call, self._has_graphs = self.network, False
        self._compiled_for.add(shapes)
        return output

    def _run(self, *inputs: Any, **named: Any) -> Tensor:
        if not self._has_graphs:
            return self._call(*inputs, **named)
        # A CUDA graph overwrites its output memory at every call, and a sampler may still need the previous output.
        torch.compiler.cudagraph_mark_step_begin()
        return self._call(*inputs, **named).clone()
