"""To a device without waiting for it: what the host draws or reads goes there while the device still computes."""

import torch
from torch import Tensor


def send(tensor: Tensor, device: str | torch.device) -> Tensor:
    """The tensor on a device; the host goes on at once, where `.to(device)` would wait until all before it is computed.

    A GPU copies by itself only from pinned memory; torch keeps such memory until the copy is over, and then uses it
    again.
    """
    pinned = tensor.pin_memory() if torch.device(device).type == "cuda" and tensor.device.type == "cpu" else tensor
    return pinned.to(device, non_blocking=True)
