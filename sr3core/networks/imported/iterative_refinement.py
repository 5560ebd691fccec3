"""The network of "Image-Super-Resolution-via-Iterative-Refinement", the widely used re-implementation of SR3.

Facts: https://github.com/Janspiry/Image-Super-Resolution-via-Iterative-Refinement, model/sr3_modules. Against Figure
A.1, blocks are DDPM's: skips are not scaled, resampling is a convolution of its own, and attention has no bias before
it. The noise level is embedded as sqrt(gamma), unscaled, and added without an activation. Modules have the names of
its state_dict.
"""

import math
from collections import OrderedDict
from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from sr3core.hyperparameters import UNetConfig
from sr3core.networks.layers import GroupNorm
from sr3core.networks.network import Network
from sr3core.networks.precision import call_in_float32


class IterativeRefinementUNet(Network):
    """f(x_up, y_t, gamma) of the re-implementation; it predicts epsilon."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__(config)
        width = config.base_channels
        self.noise_level_mlp = nn.Sequential(
            nn.Identity(), nn.Linear(width, 4 * width), nn.SiLU(), nn.Linear(4 * width, width)
        )
        widths = [width * multiplier for multiplier in config.channel_multipliers]
        levels = list(zip(config.level_sizes, widths, strict=True))
        channels, skips = width, [width]
        self.downs = nn.ModuleList([nn.Conv2d(2 * config.image_channels, width, 3, padding=1)])
        for size, out_channels in levels:
            for _ in range(config.num_res_blocks):
                self.downs.append(_Block(config, channels, out_channels, config.attends(size)))
                channels = out_channels
                skips.append(channels)
            if size != levels[-1][0]:
                self.downs.append(_named(conv=nn.Conv2d(channels, channels, 3, stride=2, padding=1)))
                skips.append(channels)
        self.mid = nn.ModuleList([_Block(config, channels, channels, attends) for attends in (True, False)])
        self.ups = nn.ModuleList()
        for size, out_channels in reversed(levels):
            for _ in range(config.num_res_blocks + 1):
                attends = config.attends(size)
                self.ups.append(_Block(config, channels + skips.pop(), out_channels, attends))
                channels = out_channels
            if size != levels[0][0]:
                conv = nn.Conv2d(channels, channels, 3, padding=1)
                self.ups.append(_named(up=nn.Upsample(scale_factor=2, mode="nearest"), conv=conv))
        self.final_conv = _normalised_conv(config, channels, self.out_channels)

    def in_float32(self) -> Iterable[nn.Module]:
        """The output layer and the embedding."""
        yield from self.noise_level_mlp.modules()
        yield from self.final_conv.modules()

    def forward(
        self,
        x_up: Tensor | None,
        y_t: Tensor,
        gamma: Tensor,
        classes: Tensor | None = None,
        input_noise: Tensor | None = None,
    ) -> Tensor:
        """Predict epsilon: (B, 3, H, W) twice and gamma (B,) -> (B, 3, H, W)."""
        self.check_inputs(x_up, y_t, classes, input_noise)
        assert x_up is not None
        embedding = call_in_float32(self.noise_level_mlp, sinusoids(gamma, self.config.base_channels))
        h, skips = torch.cat([x_up, y_t], dim=1), list[Tensor]()
        for layer in self.downs:
            h = layer(h, embedding) if isinstance(layer, _Block) else layer(h)
            skips.append(h)
        for layer in self.mid:
            h = layer(h, embedding)
        for layer in self.ups:
            h = layer(torch.cat([h, skips.pop()], dim=1), embedding) if isinstance(layer, _Block) else layer(h)
        return call_in_float32(self.final_conv, h.float())


def sinusoids(gamma: Tensor, width: int) -> Tensor:
    """Sines and cosines of sqrt(gamma) at geometric frequencies from 1 on: (B,) -> (B, width) float32."""
    half = width // 2
    steps = torch.arange(half, device=gamma.device, dtype=torch.float64) / half
    angles = gamma.double().sqrt()[:, None] * torch.exp(-math.log(10_000) * steps)  # (B, 1) * (half,) -> (B, half)
    return torch.cat([angles.sin(), angles.cos()], dim=1).float()


def _named(**modules: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict(modules))


def _normalised_conv(config: UNetConfig, in_channels: int, out_channels: int, dropout: float = 0.0) -> nn.Sequential:
    norm, conv = GroupNorm(config.norm_groups, in_channels), nn.Conv2d(in_channels, out_channels, 3, padding=1)
    return _named(block=nn.Sequential(norm, nn.SiLU(), nn.Dropout(dropout), conv))


class _Block(nn.Module):
    """A residual block, followed by self-attention at some resolutions."""

    def __init__(self, config: UNetConfig, in_channels: int, out_channels: int, attends: bool) -> None:
        super().__init__()
        self.res_block = _ResidualBlock(config, in_channels, out_channels)
        self.attn = _SelfAttention(config, out_channels) if attends else nn.Identity()

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        """(B, in_channels, H, W) and (B, base_channels) -> (B, out_channels, H, W)."""
        return self.attn(self.res_block(h, embedding))


class _ResidualBlock(nn.Module):
    def __init__(self, config: UNetConfig, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.noise_func = _named(noise_func=nn.Sequential(nn.Linear(config.base_channels, out_channels)))
        self.block1 = _normalised_conv(config, in_channels, out_channels)
        self.block2 = _normalised_conv(config, out_channels, out_channels, config.dropout)
        self.res_conv = nn.Identity() if in_channels == out_channels else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        branch = self.block1(h) + self.noise_func(embedding)[:, :, None, None]
        return self.block2(branch) + self.res_conv(h)


class _SelfAttention(nn.Module):
    """One head over all pixels."""

    def __init__(self, config: UNetConfig, channels: int) -> None:
        super().__init__()
        self.norm = GroupNorm(config.norm_groups, channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1, bias=False)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, h: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        pixels = self.qkv(self.norm(h)).flatten(2).transpose(1, 2)  # (B, H W, 3 C)
        query, key, value = cast("tuple[Tensor, ...]", pixels.chunk(3, dim=2))  # (B, H W, C) each
        attended = functional.scaled_dot_product_attention(query, key, value)
        return h + self.out(attended.transpose(1, 2).reshape(h.shape))
