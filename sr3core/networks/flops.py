"""Floating-point operations of a network and peak rates of devices, for model FLOP utilisation."""

import torch
from torch.utils.flop_counter import FlopCounterMode

from sr3core.hyperparameters import Precision, UNetConfig
from sr3core.networks.unet import UNet, zero_inputs
from sr3core.sizes import sides_of

TRAINING_FACTOR = 3
"""Operations of a training step divided by those of a forward pass: the backward pass multiplies once for the inputs'
gradients and once for the weights'."""

PEAK_FLOPS = {
    "H200": {"bfloat16": 989e12, "tf32": 494e12, "float32": 67e12},
    "H100": {"bfloat16": 989e12, "tf32": 494e12, "float32": 67e12},
    "A100": {"bfloat16": 312e12, "tf32": 156e12, "float32": 19.5e12},
    "L40S": {"bfloat16": 362e12, "tf32": 183e12, "float32": 91.6e12},
    "L4": {"bfloat16": 121e12, "tf32": 60e12, "float32": 30.3e12},
}
"""Dense operations per second from the vendors' data sheets, for GPUs whose name contains the key (SXM if in doubt)."""


def forward_flops(config: UNetConfig) -> int:
    """Operations of a forward pass of one image at the network's training size; a multiply-add counts as two.

    torch counts them on the meta device: convolutions, linear layers and attention, but no element-wise operations.
    """
    with torch.device("meta"):
        network = UNet(config).eval()
        condition, image = zero_inputs(config, sides_of(config.image_size))
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            classes = None if config.num_classes is None else torch.zeros(1, dtype=torch.long)
            network(condition, image, torch.ones(1), classes)
    return counter.get_total_flops()


def peak_flops(device: torch.device, precision: Precision) -> float | None:
    """Peak operations per second of a device; None if unknown, as for CPUs."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peaks[precision] for key, peaks in PEAK_FLOPS.items() if key in name), None)
