"""Three layers for which torch has slow ways on a CPU: the same functions by faster ones, to rounding.

Measured on one core of a server, forward and backward, 64 channels of 64x64 pixels, batch 8: group normalisation 6.5 ms
became 4.3 (in bfloat16 its backward pass alone was 15), a 1x1 convolution 12.4 became 6.7, and the convolution of a
doubled image 49 became 30. GPUs' kernels are another matter: there these functions call torch's own.
"""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

_ONEDNN_BATCH = 16
"""From this batch on torch leaves 1x1 convolutions to oneDNN, whatever the number of threads."""


class GroupNorm(nn.GroupNorm):
    """Group normalisation, always in float32, as autocast has it on GPUs alone."""

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape, float32."""
        if input.device.type != "cpu" or not torch.is_grad_enabled():
            return super().forward(input.float())
        apply = cast("Callable[..., Tensor]", _Normalise.apply)  # pyright: ignore[reportUnknownMemberType]
        return apply(input, self.weight, self.bias, self.num_groups, self.eps)


class _Normalise(torch.autograd.Function):
    """torch's forward pass, and a backward pass in whole-map operations, which run through channels_last pixels.

    torch's own goes group by group: with four channels side by side it fills a quarter of a vector register.
    """

    @staticmethod
    def forward(ctx: Any, h: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> Tensor:
        """Of (B, C, H, W)."""
        batch, channels, height, width = h.shape
        h = h.contiguous(memory_format=torch.channels_last)
        out, mean, rstd = torch.native_group_norm(h.float(), weight, bias, batch, channels, height * width, groups, eps)
        ctx.save_for_backward(h, weight, mean, rstd)  # bfloat16's half of the memory, where h is that
        return out

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  # the decorator hides the signature
        ctx: Any, *grad_outputs: Any
    ) -> tuple[Tensor, Tensor, Tensor, None, None]:
        """Gradients of h, weight, bias: with h_hat = (h - mean) rstd over the n values of a group,

        d h = rstd (weight g - mean(weight g) - h_hat mean(weight g h_hat)), sorted here by g, h and 1.
        """
        kept, weight, mean, rstd = ctx.saved_tensors
        h = kept.float()
        grad, (batch, groups) = grad_outputs[0], mean.shape
        n = h[0].numel() // groups
        mean, rstd, scale = mean[..., None], rstd[..., None], weight.view(groups, -1)  # (B, G, 1) twice, (G, C / G)
        sums = grad.sum((2, 3)).view(batch, groups, -1)
        products = ((grad * h).sum((2, 3)).view(batch, groups, -1) - mean * sums) * rstd  # of g with h_hat, summed
        slope = -(scale * products).sum(2, keepdim=True) * rstd**2 / n
        offset = -slope * mean - (scale * sums).sum(2, keepdim=True) * rstd / n

        def of_pixels(values: Tensor) -> Tensor:
            return values.expand_as(sums).reshape(batch, -1, 1, 1)

        grad_h = (grad * of_pixels(scale * rstd)).addcmul_(h, of_pixels(slope)).add_(of_pixels(offset))
        return grad_h.to(kept.dtype), products.sum(0).flatten(), sums.sum(0).flatten(), None, None


class Conv1x1(nn.Conv2d):
    """A 1x1 convolution as what it is over channels_last pixels, where that copies nothing.

    On a GPU it is a matrix product. On a CPU oneDNN's convolution is twice as fast as that, but torch takes another way
    for small batches on one thread; rows of an image are as good as images.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H, W)."""
        pixels = input.permute(0, 2, 3, 1)
        if input.device.type != "cpu":
            return functional.linear(pixels, self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)
        batch, height, width, channels = pixels.shape
        parts = next((n for n in range(1, height) if height % n == 0 and batch * n >= _ONEDNN_BATCH), height)
        rows = pixels.reshape(batch * parts, height // parts, width, channels).permute(0, 3, 1, 2)
        out = functional.conv2d(rows, self.weight, self.bias).permute(0, 2, 3, 1)
        return out.reshape(batch, height, width, -1).permute(0, 3, 1, 2)


def convolve_doubled(h: Tensor, conv: nn.Conv2d) -> Tensor:
    """A 3x3 convolution of the map that repeats every pixel of h twice in both directions.

    Each output pixel sees 2x2 different pixels of h, some of them several times; weights that meet the same pixel are
    added first, which leaves 4/9 of the multiplications: a transposed convolution by a 4x4 kernel of stride 2.

    Args:
        h: (B, C, H, W).
        conv: 3x3, padding 1.

    Returns:
        (B, C', 2 H, 2 W).
    """
    if h.device.type != "cpu":
        return conv(functional.interpolate(h, scale_factor=2, mode="nearest"))
    kernel = functional.avg_pool2d(conv.weight, 2, stride=1, padding=1, divisor_override=1)  # sums; (C', C, 4, 4)
    return functional.conv_transpose2d(h, kernel.flip(2, 3).transpose(0, 1), conv.bias, stride=2, padding=1)
