"""The upsampling network of OpenAI's guided-diffusion (Dhariwal and Nichol, 2021).

Facts: https://github.com/openai/guided-diffusion, guided_diffusion/unet.py. Against Figure A.1, the embedding scales
and shifts a normalised map, skips are not scaled, and the network is told a step t = 0..T-1 instead of gamma. x_up is
bilinear. Its class embedding is added to that of the step, so that one class is a constant in `time_embed.2.bias`.
Modules have the names of its state_dict.
"""

import math
from collections.abc import Iterable
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from sr3core.errors import ConfigError
from sr3core.hyperparameters import NoiseScheduleConfig, UNetConfig
from sr3core.networks.layers import GroupNorm
from sr3core.networks.network import Network
from sr3core.networks.precision import call_in_float32

Resampling = Literal["up", "down"]


class GuidedDiffusionUNet(Network):
    """f(x_up, y_t, gamma); it predicts epsilon, and with a learned variance its v.

    Args:
        config: the network.
        noise: the linear schedule that it was trained with, which says what step a gamma belongs to.
    """

    steps_of_log_snr: Tensor

    def __init__(self, config: UNetConfig, noise: NoiseScheduleConfig) -> None:
        super().__init__(config)
        width = config.base_channels
        self.register_buffer("steps_of_log_snr", _falling_log_snr(noise), persistent=False)
        self.time_embed = nn.Sequential(nn.Linear(width, 4 * width), nn.SiLU(), nn.Linear(4 * width, 4 * width))
        widths = [width * multiplier for multiplier in config.channel_multipliers]
        levels = list(zip(config.level_sizes, widths, strict=True))
        channels = levels[0][1]
        self.input_blocks = nn.ModuleList([_Layers(nn.Conv2d(2 * config.image_channels, channels, 3, padding=1))])
        skips = [channels]
        for size, out_channels in levels:
            for _ in range(config.num_res_blocks):
                self.input_blocks.append(_block(config, channels, out_channels, size))
                channels = out_channels
                skips.append(channels)
            if size != levels[-1][0]:
                self.input_blocks.append(_Layers(_ResidualBlock(config, channels, channels, "down")))
                skips.append(channels)
        self.middle_block = _Layers(
            _ResidualBlock(config, channels, channels),
            _SelfAttention(config, channels),
            _ResidualBlock(config, channels, channels),
        )
        self.output_blocks = nn.ModuleList()
        for size, out_channels in reversed(levels):
            for left in reversed(range(config.num_res_blocks + 1)):
                block = _block(config, channels + skips.pop(), out_channels, size)
                channels = out_channels
                if left == 0 and size != levels[0][0]:
                    block.append(_ResidualBlock(config, channels, channels, "up"))
                self.output_blocks.append(block)
        conv = nn.Conv2d(channels, self.out_channels, 3, padding=1)
        self.out = nn.Sequential(GroupNorm(config.norm_groups, channels), nn.SiLU(), conv)

    def in_float32(self) -> Iterable[nn.Module]:
        """The output layer and the embedding."""
        yield from self.time_embed.modules()
        yield from self.out.modules()

    def forward(
        self,
        x_up: Tensor | None,
        y_t: Tensor,
        gamma: Tensor,
        classes: Tensor | None = None,
        input_noise: Tensor | None = None,
    ) -> Tensor:
        """Predict epsilon: (B, 3, H, W) twice and gamma (B,) -> (B, 3, H, W), with a learned variance (B, 6, H, W)."""
        self.check_inputs(x_up, y_t, classes, input_noise)
        assert x_up is not None
        embedding = call_in_float32(self.time_embed, sinusoids(self.step_of(gamma), self.config.base_channels))
        h, skips = torch.cat([y_t, x_up], dim=1), list[Tensor]()
        for layers in self.input_blocks:
            h = layers(h, embedding)
            skips.append(h)
        h = self.middle_block(h, embedding)
        for layers in self.output_blocks:
            h = layers(torch.cat([h, skips.pop()], dim=1), embedding)
        return call_in_float32(self.out, h.float())

    def step_of(self, gamma: Tensor) -> Tensor:
        """The network's own step of a noise level: (B,) -> (B,) float64 in [0, T - 1].

        It is a whole number at the levels of training, and between them linear in the logarithm of the signal-to-noise
        ratio.
        """
        knots, gamma = self.steps_of_log_snr, gamma.double()
        level = torch.log1p(-gamma) - gamma.log()
        after = torch.searchsorted(knots, level).clamp(1, len(knots) - 1)
        before = after - 1
        share = (level - knots[before]) / (knots[after] - knots[before])
        return (before + share).clamp(0, len(knots) - 1)


def _falling_log_snr(noise: NoiseScheduleConfig) -> Tensor:
    """-log(gamma / (1 - gamma)) of the steps, rising: (T,) float64."""
    if noise.family != "linear" or noise.num_steps < 2:
        raise ConfigError(f"noise_schedule: {noise.family} of {noise.num_steps} steps; this network needs a linear one")
    gammas = np.cumprod(1 - np.linspace(noise.beta_first, noise.beta_last, noise.num_steps))
    return torch.as_tensor(np.log1p(-gammas) - np.log(gammas))


def sinusoids(step: Tensor, width: int) -> Tensor:
    """Cosines and sines of a step at geometric frequencies from 1 on: (B,) -> (B, width) float32."""
    half = width // 2
    steps = torch.arange(half, device=step.device, dtype=torch.float64) / half
    angles = step[:, None] * torch.exp(-math.log(10_000) * steps)  # (B, 1) * (half,) -> (B, half)
    return torch.cat([angles.cos(), angles.sin()], dim=1).float()


class _Layers(nn.Sequential):
    """Layers in a row, of which residual blocks also take the embedding."""

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        for layer in self:
            h = layer(h, embedding) if isinstance(layer, _ResidualBlock) else layer(h)
        return h


def _block(config: UNetConfig, in_channels: int, out_channels: int, size: tuple[int, int]) -> _Layers:
    layers = _Layers(_ResidualBlock(config, in_channels, out_channels))
    if config.attends(size):
        layers.append(_SelfAttention(config, out_channels))
    return layers


class _ResidualBlock(nn.Module):
    """A residual block whose embedding scales and shifts; it resamples between its activation and its convolution."""

    def __init__(
        self, config: UNetConfig, in_channels: int, out_channels: int, resample: Resampling | None = None
    ) -> None:
        super().__init__()
        self.resample = resample
        norms = [GroupNorm(config.norm_groups, channels) for channels in (in_channels, out_channels)]
        convs = [nn.Conv2d(channels, out_channels, 3, padding=1) for channels in (in_channels, out_channels)]
        self.in_layers = nn.Sequential(norms[0], nn.SiLU(), convs[0])
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(4 * config.base_channels, 2 * out_channels))
        self.out_layers = nn.Sequential(norms[1], nn.SiLU(), nn.Dropout(config.dropout), convs[1])
        same = in_channels == out_channels
        self.skip_connection = nn.Identity() if same else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        """(B, in_channels, H, W) and (B, 4 base_channels) -> (B, out_channels, H', W')."""
        branch = self.in_layers[2](self._resampled(self.in_layers[:2](h)))
        scale, shift = self.emb_layers(embedding)[:, :, None, None].chunk(2, dim=1)  # (B, out_channels, 1, 1) each
        branch = self.out_layers[1:](self.out_layers[0](branch) * (1 + scale) + shift)
        return self.skip_connection(self._resampled(h)) + branch

    def _resampled(self, h: Tensor) -> Tensor:
        if self.resample == "down":
            return functional.avg_pool2d(h, 2)
        return functional.interpolate(h, scale_factor=2, mode="nearest") if self.resample == "up" else h


class _SelfAttention(nn.Module):
    """Self-attention over all pixels; query, key and value of a head are neighbours in `qkv`."""

    def __init__(self, config: UNetConfig, channels: int) -> None:
        super().__init__()
        self.num_heads = config.heads_for(channels)
        self.norm = GroupNorm(config.norm_groups, channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = nn.Conv1d(channels, channels, 1)

    def forward(self, h: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        batch, channels, height, width = h.shape
        qkv = self.qkv(self.norm(h).flatten(2))  # (B, 3 C, H W)
        qkv = qkv.reshape(batch, self.num_heads, 3, channels // self.num_heads, height * width)
        query, key, value = qkv.permute(2, 0, 1, 4, 3)  # each (B, n, H W, C / n); n = num_heads
        attended = functional.scaled_dot_product_attention(query, key, value)
        attended = attended.transpose(2, 3).reshape(batch, channels, height * width)  # (B, C, H W)
        return h + self.proj_out(attended).reshape(h.shape)
