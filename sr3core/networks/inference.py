"""A network prepared for fast sampling: its device, memory layout and precision, and optional compilation."""

from typing import Any

import torch
from torch import Tensor, nn

from sr3core.hyperparameters import Precision
from sr3core.networks.execution import accelerate
from sr3core.networks.network import Network
from sr3core.networks.precision import set_gpu_arithmetic


class InferenceNetwork(nn.Module):
    """A trained network for sampling, without gradients or dropout. Inputs must be on its device.

    bfloat16 leaves in float32: the noise-level embedding and the output layer (the reasons are in their code), and the
    statistics of normalisation, for which autocast or the kernel itself uses float32. Noise levels, y_t and all of a
    sampler's arithmetic are never in less than float32.

    Args:
        network: modified in place: moved, converted to channels_last and, for bfloat16, rounded, so that its weights
            take half the memory.
        device: the device to compute on.
        precision: float32; tf32, which is float32 with a GPU's multiplications rounded to TensorFloat-32; or bfloat16.
        compiled: use torch.compile, and on a GPU CUDA graphs, which save small batches the cost of launching kernels.
            If compilation fails, the network runs uncompiled.
    """

    def __init__(
        self,
        network: Network,
        device: str | torch.device = "cpu",
        precision: Precision = "tf32",
        compiled: bool = False,
    ) -> None:
        super().__init__()
        self.device = torch.device(device)
        self.size_multiple = network.size_multiple
        # Convolutions of images are faster in this memory layout, on CPUs and on tensor cores.
        network.eval().to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if precision == "bfloat16":
            _round_weights(network)
        on_gpu = self.device.type == "cuda"
        if on_gpu:
            set_gpu_arithmetic(precision)
        compile_mode = ("reduce-overhead" if on_gpu else "default") if compiled else None
        self._call: Any = accelerate(network, precision, compile_mode)

    def forward(
        self, x_up: Tensor | None, y_t: Tensor, gamma: Tensor, classes: Tensor | None = None, *told: Tensor
    ) -> Tensor:
        """Call the network (UNet.forward); the output is float32."""
        return self._call(x_up, y_t, gamma, classes, *told)


def _round_weights(network: Network) -> None:
    """Round to bfloat16 the weights that autocast would round at every use: convolutions and linear layers."""
    apart = set(network.in_float32())
    for module in network.modules():
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Linear) and module not in apart:
            module.to(torch.bfloat16)
