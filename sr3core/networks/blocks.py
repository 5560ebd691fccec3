"""Building blocks of the U-Net: BigGAN residual block with 1/sqrt(2) skips, self-attention, noise-level embedding."""

import math
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from sr3core.networks.layers import Conv1x1, GroupNorm, convolve_doubled
from sr3core.networks.precision import call_in_float32

NOISE_LEVEL_SCALE = 5000.0
"""WaveGrad's scale of sqrt(gamma) before the sinusoids; without it the embeddings of different levels barely differ."""

SKIP_SCALE = 1 / math.sqrt(2)
"""Section 2.4: "we re-scale skip connections by 1/sqrt(2)"; it keeps the variance of a sum of two branches."""

Resampling = Literal["up", "down"]
"""Whether a residual block doubles ("up") or halves ("down") the size of its feature maps."""

WeightedT = TypeVar("WeightedT", bound=nn.Conv2d | nn.Linear)
ModuleT = TypeVar("ModuleT", bound=nn.Module)


def normalization(channels: int) -> nn.GroupNorm:
    """Group normalisation with as many groups as divide the channels: at most 32, if possible of 4 channels or more."""
    most = min(max(channels // 4, 1), 32)
    return GroupNorm(next(groups for groups in range(most, 0, -1) if channels % groups == 0), channels, eps=1e-6)


def scaled_init(layer: WeightedT, scale: float) -> WeightedT:
    """Initialise the last layer of a branch: fan_average_init's weights times scale; 0 silences the branch at first."""
    if not scale:
        return zero_init(layer)
    with torch.no_grad():
        fan_average_init(layer).weight.mul_(scale)
    return layer


def zero_init(layer: ModuleT) -> ModuleT:
    """Set a layer's weights to zero, so that its branch initially outputs zero."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def fan_average_init(layer: WeightedT) -> WeightedT:
    """Uniform initialisation scaled by the average of fan-in and fan-out, as in DDPM; biases are zero."""
    nn.init.xavier_uniform_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def conv3x3(in_channels: int, out_channels: int) -> nn.Conv2d:
    """A 3x3 convolution that keeps the spatial size."""
    return fan_average_init(nn.Conv2d(in_channels, out_channels, 3, padding=1))


def conv1x1(in_channels: int, out_channels: int) -> nn.Conv2d:
    """A 1x1 convolution."""
    return fan_average_init(Conv1x1(in_channels, out_channels, 1))


class NoiseLevelEmbedding(nn.Module):
    """gamma (B,) -> (B, 4 width): sinusoids of 5000 sqrt(gamma), then two linear layers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.layers = nn.Sequential(
            fan_average_init(nn.Linear(width, 4 * width)), nn.SiLU(), fan_average_init(nn.Linear(4 * width, 4 * width))
        )

    def forward(self, gamma: Tensor) -> Tensor:
        """Embed gamma (B,) in (0, 1], always in float32: fewer bits would merge neighbouring levels."""
        return call_in_float32(self.layers, sinusoids(gamma, self.width))


def sinusoids(gamma: Tensor, width: int) -> Tensor:
    """Sines and cosines of 5000 sqrt(gamma) at geometric frequencies 1 .. 1e-4: (B,) -> (B, width) float32."""
    half = width // 2
    # In float64, because float32 leaves only 11 bits after the binary point of 5000 sqrt(gamma).
    frequencies = torch.exp(
        -math.log(10_000) * torch.arange(half, device=gamma.device, dtype=torch.float64) / (half - 1)
    )
    angles = NOISE_LEVEL_SCALE * gamma.double().sqrt()[:, None] * frequencies  # (B, 1) * (half,) -> (B, half)
    return torch.cat([angles.sin(), angles.cos()], dim=1).float()


class ResidualBlock(nn.Module):
    """BigGAN's residual block as used in score-based models: it resamples inside, and the embedding is added.

    Args:
        in_channels, out_channels: channels of the input and the output.
        embedding_channels: width of the noise-level embedding.
        dropout: dropout rate before the second convolution.
        resample: "up" doubles the spatial size, "down" halves it, None keeps it.
        branch_init: scale of the branch's last weights before training.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        embedding_channels: int,
        dropout: float,
        resample: Resampling | None = None,
        branch_init: float = 0.0,
    ) -> None:
        super().__init__()
        self.resample = resample
        self.norm1 = normalization(in_channels)
        self.conv1 = conv3x3(in_channels, out_channels)
        self.embedding = fan_average_init(nn.Linear(embedding_channels, out_channels))
        self.norm2 = normalization(out_channels)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = scaled_init(nn.Conv2d(out_channels, out_channels, 3, padding=1), branch_init)
        same = in_channels == out_channels and resample is None
        self.shortcut = nn.Identity() if same else conv1x1(in_channels, out_channels)

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        """(B, in_channels, H, W) and (B, embedding_channels) -> (B, out_channels, H', W')."""
        branch = functional.silu(self.norm1(h))
        doubles = self.resample == "up"
        branch = convolve_doubled(branch, self.conv1) if doubles else self.conv1(self._shrink(branch))
        branch += self.embedding(functional.silu(embedding))[:, :, None, None]  # (B, out_channels, 1, 1)
        branch = self.conv2(self.dropout(functional.silu(self.norm2(branch))))
        # In place where no gradient needs the old values: the maps are large, and memory bandwidth dominates the time.
        return (self._skip(h) + branch).mul_(SKIP_SCALE)

    def _skip(self, h: Tensor) -> Tensor:
        # A 1x1 convolution and doubling commute, so the convolution comes first, on fewer pixels.
        skip = self.shortcut(self._shrink(h))
        return functional.interpolate(skip, scale_factor=2, mode="nearest") if self.resample == "up" else skip

    def _shrink(self, h: Tensor) -> Tensor:
        return functional.avg_pool2d(h, 2) if self.resample == "down" else h


class SelfAttention(nn.Module):
    """Self-attention over all pixels, with the same scaled skip connection as a residual block."""

    def __init__(self, channels: int, num_heads: int = 1, branch_init: float = 0.0) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm = normalization(channels)
        self.query_key_value = conv1x1(channels, 3 * channels)
        self.out = scaled_init(Conv1x1(channels, channels, 1), branch_init)

    def forward(self, h: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        batch, channels, height, width = h.shape
        # These are views: in channels_last maps the channels are contiguous, as fast attention kernels require.
        qkv = self.query_key_value(self.norm(h)).permute(0, 2, 3, 1)  # (B, H, W, 3 C)
        qkv = qkv.reshape(batch, height * width, 3, self.num_heads, channels // self.num_heads)  # (B, H W, 3, n, C / n)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)  # each (B, n, H W, C / n); n = num_heads
        attended = functional.scaled_dot_product_attention(query, key, value)  # (B, n, H W, C / n)
        attended = attended.transpose(1, 2).reshape(batch, height, width, channels)  # (B, H, W, C)
        return (h + self.out(attended.permute(0, 3, 1, 2))).mul_(SKIP_SCALE)  # (B, C, H, W)
