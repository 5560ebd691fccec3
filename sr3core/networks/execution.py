"""How a network is run, in training and in sampling: its precision, torch.compile, the switches of the GPU.

The compiler is optional: a network that cannot be compiled here runs as it is.
"""

import logging
from typing import Any, Literal

import torch
from torch import Tensor, nn

from sr3core.hyperparameters import InferencePrecision
from sr3core.networks.precision import InPrecision

log = logging.getLogger(__name__)

CompileMode = Literal["default", "reduce-overhead"]
"""torch.compile's mode; reduce-overhead records CUDA graphs, which pays for small batches."""


def accelerate(network: nn.Module, precision: InferencePrecision, compile_mode: CompileMode | None) -> nn.Module:
    """Wrap a network so that it computes in a precision, compiled unless compile_mode is None; it keeps its weights."""
    in_precision = InPrecision(network, precision)
    return in_precision if compile_mode is None else Compiled(in_precision, compile_mode)


def set_gpu_arithmetic(*, tf32_convolutions: bool, tf32_products: bool) -> None:
    """Set this process's switches for float32 on GPUs; torch cannot set them for one network.

    Which convolution algorithm is the fastest is not tried out (cudnn.benchmark): each process could choose another,
    which rounds differently, and a resumed training would not continue exactly.

    Args:
        tf32_convolutions: multiply in TensorFloat-32 in convolutions: 10 bits of mantissa, several times as fast.
        tf32_products: the same in matrix products, which are linear layers and 1x1 convolutions.
    """
    torch.backends.cudnn.allow_tf32 = tf32_convolutions
    torch.backends.cuda.matmul.allow_tf32 = tf32_products
    torch.backends.cudnn.benchmark = False


class Compiled(nn.Module):
    """A module made faster by torch.compile; where compiling fails, the module itself, and a warning.

    Compiled kernels are kept on the disk by torch (TORCHINDUCTOR_CACHE_DIR), so a second process starts faster.

    Args:
        network: what to compile; its weights stay where they are.
        mode: torch.compile's.
    """

    def __init__(self, network: nn.Module, mode: CompileMode = "default") -> None:
        super().__init__()
        self.network = network
        self._call: Any = torch.compile(network, mode=mode)  # pyright: ignore[reportUnknownMemberType]
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
            log.warning("torch.compile failed, continuing without it: %s", str(error).strip().splitlines()[0])
            self._call, self._has_graphs = self.network, False
        self._compiled_for.add(shapes)
        return output

    def _run(self, *inputs: Any, **named: Any) -> Tensor:
        if not self._has_graphs:
            return self._call(*inputs, **named)
        # A graph writes to the same memory every time, and a sampler may still need what was there.
        torch.compiler.cudagraph_mark_step_begin()
        return self._call(*inputs, **named).clone()
