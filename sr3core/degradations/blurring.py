"""Blur by kernels of one image each: Gaussians, isotropic or not, and generalised Gaussians."""

import torch
from torch import Tensor
from torch.nn import functional


def gaussian_kernels(sigmas: Tensor, angles: Tensor, shapes: Tensor, radius: int) -> Tensor:
    """Kernels exp(-(u^2 + v^2)^beta / 2), where u and v are the offsets in standard deviations along two axes.

    beta = 1 is a Gaussian; less has heavier tails, more is flatter on top (Real-ESRGAN's generalised Gaussian).

    Args:
        sigmas: (B, 2), standard deviations along the axes, pixels.
        angles: (B,), of the first axis against the rows, radians, anticlockwise.
        shapes: (B,), beta.
        radius: pixels on each side of the middle.

    Returns:
        (B, 2 radius + 1, 2 radius + 1), each of which sums to 1.
    """
    offsets = torch.arange(-radius, radius + 1, dtype=sigmas.dtype, device=sigmas.device)
    rows, columns = offsets[:, None], offsets[None, :]
    cosine, sine = angles.cos()[:, None, None], angles.sin()[:, None, None]  # (B, 1, 1)
    along, across = cosine * columns - sine * rows, sine * columns + cosine * rows  # (B, K, K)
    squares = (along / sigmas[:, 0, None, None]).square() + (across / sigmas[:, 1, None, None]).square()
    kernels = (-0.5 * squares.pow(shapes[:, None, None])).exp()
    return kernels / kernels.sum((1, 2), keepdim=True)


def convolve(images: Tensor, kernels: Tensor) -> Tensor:
    """Blur each image by its own kernel, reflected at the borders: (B, C, H, W) and (B, K, K) -> (B, C, H, W).

    H and W must exceed the kernels' radius.
    """
    batch, channels, height, width = images.shape
    radius = kernels.shape[-1] // 2
    padded = functional.pad(images, [radius] * 4, mode="reflect")
    grouped = padded.reshape(1, batch * channels, *padded.shape[-2:])  # each channel of each image a group
    weights = kernels[:, None].expand(batch, channels, *kernels.shape[1:]).reshape(-1, 1, *kernels.shape[1:])
    return functional.conv2d(grouped, weights, groups=batch * channels).view(batch, channels, height, width)
