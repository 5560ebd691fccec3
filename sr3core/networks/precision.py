"""Precision of a network's arithmetic in training and sampling: what is rounded, and what must not be.

torch's switches of TensorFloat-32 and of cuDNN belong to the process. This module alone sets them.
"""

from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import cast

import torch
from torch import Tensor, nn

from sr3core.hyperparameters import Precision


def set_gpu_arithmetic(precision: Precision, *, tunes: bool = False, deterministic: bool = False) -> None:
    """Set this process's arithmetic on GPUs; it has no effect on CPUs.

    Args:
        precision: tf32 rounds the factors of convolutions and matrix products to TensorFloat-32, which has 10 bits of
            mantissa and is several times as fast. With bfloat16, what autocast leaves in float32 is exactly that.
        tunes: let cuDNN time its algorithms for each new shape and take the fastest. Each process may choose another,
            with other rounding.
        deterministic: use only algorithms that give the same bits every time; torch warns of those that have none.
    """
    _allow_tf32(*[precision == "tf32"] * 2)
    torch.backends.cudnn.benchmark = tunes and not deterministic
    if (
        deterministic != torch.are_deterministic_algorithms_enabled()
    ):  # the call imports the compiler, for seconds of CPU
        torch.use_deterministic_algorithms(deterministic, warn_only=True)


@contextmanager
def exact_float32() -> Generator[None]:
    """Context without TensorFloat-32: for features that are compared, and layers whose rounding is amplified."""
    before = torch.backends.cudnn.allow_tf32, bool(torch.backends.cuda.matmul.allow_tf32)
    _allow_tf32(False, False)
    try:
        yield
    finally:
        _allow_tf32(*before)


def _allow_tf32(convolutions: bool, products: bool) -> None:
    torch.backends.cudnn.allow_tf32 = convolutions
    torch.backends.cuda.matmul.allow_tf32 = products


def call_in_float32(function: Callable[[Tensor], Tensor], value: Tensor) -> Tensor:
    """Call without autocast and without TensorFloat-32, for the few layers where rounding matters and cost does not."""
    with in_float32(value.device):
        if value.device.type == "cuda" and torch.backends.cudnn.allow_tf32:
            from sr3core.networks.uncompiled import call_uncompiled

            # A compiled convolution would read the switch when it runs, which is after the context.
            return cast("Callable[..., Tensor]", call_uncompiled)(_call_exactly, function, value)
        return function(value)


def _call_exactly(function: Callable[[Tensor], Tensor], value: Tensor) -> Tensor:
    with exact_float32():
        return function(value)


class InPrecision(nn.Module):
    """A network that computes under autocast if the precision is bfloat16, and without autocast otherwise."""

    def __init__(self, network: nn.Module, precision: Precision) -> None:
        super().__init__()
        self.network, self.precision = network, precision

    def forward(
        self, x_up: Tensor | None, y_t: Tensor, gamma: Tensor, classes: Tensor | None = None, *told: Tensor
    ) -> Tensor:
        """Call the network (UNet.forward)."""
        with torch.autocast(y_t.device.type, torch.bfloat16) if self.precision == "bfloat16" else nullcontext():
            return self.network(x_up, y_t, gamma, classes, *told)


def in_float32(device: torch.device) -> AbstractContextManager[object]:
    """Context without autocast."""
    # The meta device, used to count operations, does not support autocast.
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)
