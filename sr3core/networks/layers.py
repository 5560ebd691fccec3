"""Three layers with one implementation for CPUs and one for GPUs; both equal torch's own layers up to rounding.

On CPUs torch's own implementations are slow, and all three layers replace them. Measured on one core of a server,
forward and backward, 64 channels of 64x64 pixels, batch 8: group normalisation went from 6.5 to 4.3 ms (in bfloat16
torch's backward pass alone took 15), a 1x1 convolution from 12.4 to 6.7 ms, and the convolution of a doubled image from
49 to 30 ms.

On GPUs convolve_doubled calls torch's kernels, and Conv1x1 is a matrix product. torch's kernel of group normalisation
takes and gives maps in NCHW, and under autocast in float32 alone: every convolution around it would copy its maps, and
SiLU compute on twice the bytes. Compiled, it is taken apart and fused in the layout and type that it finds; uncompiled,
GroupNorm is made of operations that keep both.
"""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

_ONEDNN_BATCH = 16
"""Smallest batch for which torch uses oneDNN for 1x1 convolutions whatever the number of threads."""


class GroupNorm(nn.GroupNorm):
    """Group normalisation that always computes in float32.

    Uncompiled on a GPU, and for training on a CPU, it is _Normalise; elsewhere it is torch's.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape, in the input's type on a GPU and float32 elsewhere."""
        on_gpu, compiling = input.device.type == "cuda", torch.compiler.is_compiling()
        if on_gpu and compiling:
            return super().forward(input.float()).to(input.dtype)
        if not on_gpu and (input.device.type != "cpu" or not torch.is_grad_enabled()):
            return super().forward(input.float())
        apply = cast("Callable[..., Tensor]", _Normalise.apply)  # pyright: ignore[reportUnknownMemberType]
        return apply(input, self.weight, self.bias, self.num_groups, self.eps)


class _Normalise(torch.autograd.Function):
    """Group normalisation whose backward pass is made of operations on whole feature maps in channels_last layout.

    torch's own backward pass on a CPU works group by group; with four adjacent channels it fills a quarter of a vector
    register. The forward pass on a CPU is torch's.
    """

    @staticmethod
    def forward(ctx: Any, h: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> Tensor:
        """(B, C, H, W) -> the same shape, of the type that GroupNorm.forward states; weight and bias are (C,)."""
        batch, channels, height, width = h.shape
        h = h.contiguous(memory_format=torch.channels_last)
        if h.device.type == "cuda":
            out, mean, rstd = normalise_elementwise(h, weight, bias, groups, eps)
        else:
            pixels = height * width
            out, mean, rstd = torch.native_group_norm(h.float(), weight, bias, batch, channels, pixels, groups, eps)
        ctx.save_for_backward(h, weight, mean, rstd)  # h in its own type: half the memory if bfloat16
        return out

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  # the decorator hides the signature
        ctx: Any, *grad_outputs: Any
    ) -> tuple[Tensor, Tensor, Tensor, None, None]:
        """Gradients of h, weight and bias, given the gradient g of the output.

        With h_hat = (h - mean) rstd and means over the n values of a group, d h = rstd (weight g - mean(weight g) -
        h_hat mean(weight g h_hat)), computed here as a linear combination of g, h and 1. B, G and C are the numbers of
        images, groups and channels.
        """
        kept, weight, mean, rstd = ctx.saved_tensors
        h = kept.float()
        grad, (batch, groups) = grad_outputs[0], mean.shape
        n = h[0].numel() // groups
        mean, rstd, scale = mean[..., None], rstd[..., None], weight.view(groups, -1)  # (B, G, 1) twice, (G, C / G)
        # (B, C, H, W) -> (B, C) -> (B, G, C / G)
        sums = grad.sum((2, 3), dtype=torch.float32).view(batch, groups, -1)
        products = ((grad * h).sum((2, 3)).view(batch, groups, -1) - mean * sums) * rstd  # sums of g h_hat
        slope = -(scale * products).sum(2, keepdim=True) * rstd**2 / n
        # slope and offset, like mean and rstd: (B, G, 1)
        offset = -slope * mean - (scale * sums).sum(2, keepdim=True) * rstd / n

        def of_pixels(values: Tensor) -> Tensor:
            return values.expand_as(sums).reshape(batch, -1, 1, 1)  # (B, G, 1 or C / G) -> (B, C, 1, 1)

        grad_h = (grad * of_pixels(scale * rstd)).addcmul_(h, of_pixels(slope)).add_(of_pixels(offset))
        # products and sums: (B, G, C / G) -> (C,)
        return grad_h.to(kept.dtype), products.sum(0).flatten(), sums.sum(0).flatten(), None, None


def normalise_elementwise(
    h: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Group normalisation by element-wise operations, which keep the layout and the type of the maps.

    Args:
        h: (B, C, H, W) in any floating-point type.
        weight, bias: (C,) float32.
        groups: G.
        eps: added to the variance.

    Returns:
        The normalised maps, in h's type and layout; mean and 1 / standard deviation of each group, (B, G) float32.
    """
    batch, channels = h.shape[:2]
    values = h.float()
    grouped = values.view(batch, groups, channels // groups, *h.shape[2:])  # (B, G, C / G, H, W)
    variance, mean = torch.var_mean(grouped, dim=(2, 3, 4), correction=0)
    rstd = (variance + eps).rsqrt()
    slope = (weight.view(groups, -1) * rstd[..., None]).reshape(batch, channels, 1, 1)  # (G, C / G) * (B, G, 1)
    offset = bias.view(1, channels, 1, 1) - slope * mean.repeat_interleave(channels // groups, 1)[..., None, None]
    return torch.addcmul(offset, values, slope).to(h.dtype), mean, rstd


class Conv1x1(nn.Conv2d):
    """A 1x1 convolution of feature maps in channels_last layout, without copying them.

    On a GPU it is a matrix product. On a CPU oneDNN's convolution is twice as fast as a matrix product, but torch does
    not use oneDNN for small batches on one thread; so parts of an image, as groups of rows, become separate images.
    """

    def straighten(self) -> None:
        """Give the weights a matrix's strides, which their gradients have; with those of channels_last DDP warns."""
        self.weight.data = self.weight.data.flatten(1)[:, :, None, None]  # (C', C, 1, 1) -> (C', C) -> (C', C, 1, 1)

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H, W)."""
        pixels = input.permute(0, 2, 3, 1)  # (B, C, H, W) -> (B, H, W, C)
        matrix = self.weight.flatten(1)  # (C', C)
        if input.device.type != "cpu":
            # (B, H, W, C) -> (B, H, W, C') -> (B, C', H, W)
            return functional.linear(pixels, matrix, self.bias).permute(0, 3, 1, 2)
        batch, height, width, channels = pixels.shape
        parts = next((n for n in range(1, height) if height % n == 0 and batch * n >= _ONEDNN_BATCH), height)
        # (B, H, W, C) -> (B parts, H / parts, W, C) -> (B parts, C, H / parts, W)
        rows = pixels.reshape(batch * parts, height // parts, width, channels).permute(0, 3, 1, 2)
        out = functional.conv2d(rows, matrix[:, :, None, None], self.bias).permute(
            0, 2, 3, 1
        )  # (B parts, H / parts, W, C')
        return out.reshape(batch, height, width, -1).permute(0, 3, 1, 2)  # (B, H, W, C') -> (B, C', H, W)


def convolve_doubled(h: Tensor, conv: nn.Conv2d) -> Tensor:
    """A 3x3 convolution of h after nearest-neighbour upsampling by 2.

    On a CPU the two are merged. Each output pixel depends on only 2x2 different pixels of h; adding the weights that
    apply to the same pixel leaves 4/9 of the multiplications: a transposed convolution with a 4x4 kernel and stride 2.

    Args:
        h: (B, C, H, W).
        conv: 3x3, padding 1.

    Returns:
        (B, C', 2 H, 2 W).
    """
    if h.device.type != "cpu":
        return conv(functional.interpolate(h, scale_factor=2, mode="nearest"))
    # Sums of neighbouring weights: (C', C, 3, 3) -> (C', C, 4, 4), transposed below to (C, C', 4, 4).
    kernel = functional.avg_pool2d(conv.weight, 2, stride=1, padding=1, divisor_override=1)
    return functional.conv_transpose2d(h, kernel.flip(2, 3).transpose(0, 1), conv.bias, stride=2, padding=1)
