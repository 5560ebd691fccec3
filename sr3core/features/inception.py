"""The Inception-v3 that defines FID: the network of 2015-12-05, up to its 2048 pooled features.

Batch normalisation is folded into the convolutions when the weights are loaded, so this network consists of
convolutions, ReLU and pooling only. Each convolution has the same name as in the published weight files.
"""

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, max_pool2d

INPUT_SIZE = 299
NUM_FEATURES = 2048
BATCH_NORM_EPSILON = 1e-3


class Conv(nn.Conv2d):
    """Convolution, folded batch normalisation (the bias) and ReLU.

    Args:
        block: name of the block in the weight files; "" for the stem.
        name: name of the layer within its block.
        pad: pad to keep the spatial size (at stride 1); otherwise there is no padding.
    """

    def __init__(
        self,
        block: str,
        name: str,
        in_channels: int,
        out_channels: int,
        kernel: int | tuple[int, int],
        stride: int = 1,
        pad: bool = True,
    ) -> None:
        height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (height // 2, width // 2) if pad else (0, 0)
        super().__init__(in_channels, out_channels, (height, width), stride, padding)  # pyright: ignore[reportUnknownMemberType]
        self.key = f"{block}.{name}" if block else name

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input).relu_()


class Fork(nn.ModuleList):
    """Apply every branch to the same input and concatenate along the channels."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__(branches)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self], dim=1)


class Pool(nn.Module):
    """3x3 pooling: "average" (padding not counted) and "max" keep the spatial size; "shrink" is max with stride 2."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "average":
            return avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
        return max_pool2d(x, 3, stride=1, padding=1) if self.kind == "max" else max_pool2d(x, 3, stride=2)


def _stem() -> nn.Sequential:
    conv = partial(Conv, "")
    return nn.Sequential(
        conv("Conv2d_1a_3x3", 3, 32, 3, stride=2, pad=False),
        conv("Conv2d_2a_3x3", 32, 32, 3, pad=False),
        conv("Conv2d_2b_3x3", 32, 64, 3),
        Pool("shrink"),
        conv("Conv2d_3b_1x1", 64, 80, 1),
        conv("Conv2d_4a_3x3", 80, 192, 3, pad=False),
        Pool("shrink"),
    )


def _block_35(block: str, width: int, pool_width: int) -> Fork:
    """Block on the 35x35 grid: width -> 224 + pool_width channels."""
    conv = partial(Conv, block)
    return Fork(
        conv("branch1x1", width, 64, 1),
        nn.Sequential(conv("branch5x5_1", width, 48, 1), conv("branch5x5_2", 48, 64, 5)),
        nn.Sequential(
            conv("branch3x3dbl_1", width, 64, 1),
            conv("branch3x3dbl_2", 64, 96, 3),
            conv("branch3x3dbl_3", 96, 96, 3),
        ),
        nn.Sequential(Pool("average"), conv("branch_pool", width, pool_width, 1)),
    )


def _shrink_to_17() -> Fork:
    """35x35 -> 17x17: 288 -> 768 channels."""
    conv = partial(Conv, "Mixed_6a")
    return Fork(
        conv("branch3x3", 288, 384, 3, stride=2, pad=False),
        nn.Sequential(
            conv("branch3x3dbl_1", 288, 64, 1),
            conv("branch3x3dbl_2", 64, 96, 3),
            conv("branch3x3dbl_3", 96, 96, 3, stride=2, pad=False),
        ),
        Pool("shrink"),
    )


def _block_17(block: str, inner: int) -> Fork:
    """Block on the 17x17 grid, with factorised 7x7 convolutions: 768 -> 768 channels."""
    conv = partial(Conv, block)
    row, column = (1, 7), (7, 1)
    return Fork(
        conv("branch1x1", 768, 192, 1),
        nn.Sequential(
            conv("branch7x7_1", 768, inner, 1),
            conv("branch7x7_2", inner, inner, row),
            conv("branch7x7_3", inner, 192, column),
        ),
        nn.Sequential(
            conv("branch7x7dbl_1", 768, inner, 1),
            conv("branch7x7dbl_2", inner, inner, column),
            conv("branch7x7dbl_3", inner, inner, row),
            conv("branch7x7dbl_4", inner, inner, column),
            conv("branch7x7dbl_5", inner, 192, row),
        ),
        nn.Sequential(Pool("average"), conv("branch_pool", 768, 192, 1)),
    )


def _shrink_to_8() -> Fork:
    """17x17 -> 8x8: 768 -> 1280 channels."""
    conv = partial(Conv, "Mixed_7a")
    return Fork(
        nn.Sequential(conv("branch3x3_1", 768, 192, 1), conv("branch3x3_2", 192, 320, 3, stride=2, pad=False)),
        nn.Sequential(
            conv("branch7x7x3_1", 768, 192, 1),
            conv("branch7x7x3_2", 192, 192, (1, 7)),
            conv("branch7x7x3_3", 192, 192, (7, 1)),
            conv("branch7x7x3_4", 192, 192, 3, stride=2, pad=False),
        ),
        Pool("shrink"),
    )


def _block_8(block: str, width: int, pool: str) -> Fork:
    """Block on the 8x8 grid, with nested forks in two branches: width -> 2048 channels."""
    conv = partial(Conv, block)
    return Fork(
        conv("branch1x1", width, 320, 1),
        nn.Sequential(
            conv("branch3x3_1", width, 384, 1),
            Fork(conv("branch3x3_2a", 384, 384, (1, 3)), conv("branch3x3_2b", 384, 384, (3, 1))),
        ),
        nn.Sequential(
            conv("branch3x3dbl_1", width, 448, 1),
            conv("branch3x3dbl_2", 448, 384, 3),
            Fork(conv("branch3x3dbl_3a", 384, 384, (1, 3)), conv("branch3x3dbl_3b", 384, 384, (3, 1))),
        ),
        nn.Sequential(Pool(pool), conv("branch_pool", width, 192, 1)),
    )


def build_inception() -> nn.Sequential:
    """Build the untrained network: float (B, 3, 299, 299) in [-1, 1) -> the last block's (B, 2048, 8, 8).

    Its pooling is that of the FID network: averages exclude the padding, and the last block uses max-pooling.
    """
    return nn.Sequential(
        _stem(),
        _block_35("Mixed_5b", 192, 32),
        _block_35("Mixed_5c", 256, 64),
        _block_35("Mixed_5d", 288, 64),
        _shrink_to_17(),
        _block_17("Mixed_6b", 128),
        _block_17("Mixed_6c", 160),
        _block_17("Mixed_6d", 160),
        _block_17("Mixed_6e", 192),
        _shrink_to_8(),
        _block_8("Mixed_7b", 1280, pool="average"),
        _block_8("Mixed_7c", NUM_FEATURES, pool="max"),
    )


def weight_shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors in a weight file for this network: 5 per convolution, 470 in total."""
    shapes: dict[str, tuple[int, ...]] = {}
    for conv in _convolutions(network):
        shapes[f"{conv.key}.conv.weight"] = tuple(conv.weight.shape)
        for statistic in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{conv.key}.bn.{statistic}"] = (conv.out_channels,)
    return shapes


def load_folded(network: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Fold batch normalisation into each convolution, in float64, and load the result.

    Args:
        network: from `build_inception`.
        weights: every tensor of `weight_shapes(network)`.
    """
    with torch.no_grad():
        for conv in _convolutions(network):
            kernel, scale, shift, mean, variance = (
                weights[f"{conv.key}.{name}"].double()
                for name in ("conv.weight", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var")
            )
            factor = scale / (variance + BATCH_NORM_EPSILON).sqrt()
            conv.weight.copy_(kernel * factor[:, None, None, None])
            assert conv.bias is not None
            conv.bias.copy_(shift - mean * factor)


def _convolutions(network: nn.Module) -> list[Conv]:
    return [module for module in network.modules() if isinstance(module, Conv)]


def resize_bilinear_tf1(images: Tensor, size: int = INPUT_SIZE) -> Tensor:
    """Resize like TensorFlow 1's `resize_bilinear`: source = target * in / out, without antialiasing.

    There is no half-pixel shift. FID is defined with this resize; values computed with any other are not comparable.

    Args:
        images: float (B, C, H, W), any range.

    Returns:
        (B, C, size, size), same range.
    """
    return _interpolate(_interpolate(images, 3, size), 2, size)


def _interpolate(images: Tensor, dim: int, size: int) -> Tensor:
    in_size = images.shape[dim]
    if in_size == size:
        return images
    source = torch.arange(size, dtype=torch.float64, device=images.device) * (in_size / size)
    low = source.long().clamp_(max=in_size - 1)
    high = (low + 1).clamp_(max=in_size - 1)
    shape = [1, 1, 1, 1]
    shape[dim] = size
    fraction = (source - low).to(images.dtype).view(shape)  # (size,) -> broadcastable along dim of (B, C, H, W)
    return torch.lerp(images.index_select(dim, low), images.index_select(dim, high), fraction)
