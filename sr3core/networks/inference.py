"""A network made ready to sample fast: on its device, in its layout and precision, compiled where that is wanted."""

from typing import Any

import torch
from torch import Tensor, nn

from sr3core.hyperparameters import InferencePrecision
from sr3core.networks.execution import accelerate, set_gpu_arithmetic
from sr3core.networks.unet import UNet


class InferenceNetwork(nn.Module):
    """A trained U-Net as samplers call it: without gradients or dropout, its inputs on its device.

    What bfloat16 leaves in float32: the noise levels' embedding and the output layer (their own code says why), and
    normalisation's statistics, which autocast or the kernel itself takes in float32. Noise levels, y_t and all of a
    sampler's arithmetic are never in less than float32.

    Args:
        network: is moved, laid out and, for bfloat16, rounded in place: its weights then take half of the memory.
        device: where to compute.
        precision: float32; tf32, which is float32 with the multiplications of GPUs rounded to TensorFloat-32; bfloat16.
        compiled: by torch.compile, and on a GPU in CUDA graphs, which spare small batches the launching of kernels;
            where that fails the network runs as it is.
    """

    def __init__(
        self,
        network: UNet,
        device: str | torch.device = "cpu",
        precision: InferencePrecision = "tf32",
        compiled: bool = False,
    ) -> None:
        super().__init__()
        self.device = torch.device(device)
        self.size_multiple = network.size_multiple
        # Convolutions of images are faster in this layout, on CPUs and on tensor cores.
        network.eval().to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if precision == "bfloat16":
            _round_weights(network)
        on_gpu = self.device.type == "cuda"
        if on_gpu:
            set_gpu_arithmetic(tf32_convolutions=precision != "float32", tf32_products=precision != "float32")
        compile_mode = ("reduce-overhead" if on_gpu else "default") if compiled else None
        self._call: Any = accelerate(network, precision, compile_mode)

    def forward(self, x_up: Tensor | None, y_t: Tensor, gamma: Tensor, classes: Tensor | None = None) -> Tensor:
        """As the network's; float32."""
        return self._call(x_up, y_t, gamma, classes)


def _round_weights(network: UNet) -> None:
    """Keep in bfloat16 what autocast would round before every use: the convolutions and linear layers."""
    apart = {network.conv_out, *network.embed_noise_level.modules()}
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear) and module not in apart:
            module.to(torch.bfloat16)
