"""Asynchronous copies to a device: the host's data is transferred while the device is still computing."""

import torch
from torch import Tensor


def send(tensor: Tensor, device: str | torch.device) -> Tensor:
    """Copy a tensor to a device without waiting; `.to(device)` would block until the device has finished earlier work.

    A GPU can copy asynchronously only from pinned memory. torch keeps that memory until the copy has finished and then
    reuses it.
    """
    to_gpu = torch.device(device).type == "cuda" and tensor.device.type == "cpu"
    pinned = tensor.pin_memory() if to_gpu else tensor  # which is itself, if it is pinned already
    return pinned.to(device, non_blocking=True)
