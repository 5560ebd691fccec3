"""The U-Net of Figure A.1: (x_up, y_t) -> image, conditioned on gamma and, in a base model, on a class.

Parameter names state their position: `decoder.64x64_block1.conv1.weight` belongs to the second decoder block with a
64x64 output at the training size. Blocks named `_down` and `_up` resample to the resolution in their name.
"""

from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint  # pyright: ignore[reportUnknownVariableType]

from sr3core.hyperparameters import UNetConfig
from sr3core.networks.blocks import (
    NoiseLevelEmbedding,
    Resampling,
    ResidualBlock,
    SelfAttention,
    conv3x3,
    normalization,
    zero_init,
)
from sr3core.networks.network import Network
from sr3core.networks.precision import call_in_float32


class UNet(Network):
    """f(x_up, y_t, gamma) of Figure A.1. It is fully convolutional: H and W may be any multiples of size_multiple."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__(config)
        width, embedding = config.base_channels, 4 * config.base_channels
        self.embed_noise_level = NoiseLevelEmbedding(width)
        if config.num_classes is not None:
            self.embed_class = nn.Embedding(config.num_classes + 1, embedding)  # last row: "no class"
        if config.input_noise:
            self.embed_input_noise = NoiseLevelEmbedding(width)
        self.conv_in = conv3x3(config.image_channels * (2 if config.conditional else 1) + config.extra_channels, width)

        def block(
            in_channels: int, out_channels: int, attends: bool = False, resample: Resampling | None = None
        ) -> UNetBlock:
            num_heads = config.heads_for(out_channels) if attends else None
            init = config.branch_init
            return UNetBlock(in_channels, out_channels, embedding, config.dropout, resample, num_heads, init)

        pairs = zip(config.level_sizes, config.channel_multipliers, strict=True)
        levels = [(size, f"{size[0]}x{size[1]}", width * multiplier) for size, multiplier in pairs]
        channels = width
        skips = [width]  # channels of the feature maps on the skip connections
        self.encoder = nn.ModuleDict()
        for level, (size, name, out_channels) in enumerate(levels):
            if level > 0:
                self.encoder[f"{name}_down"] = block(channels, channels, resample="down")
                skips.append(channels)
            for index in range(config.num_res_blocks):
                self.encoder[f"{name}_block{index}"] = block(channels, out_channels, config.attends(size))
                channels = out_channels
                skips.append(channels)
        _, name, _ = levels[-1]
        self.middle = nn.ModuleDict()
        self.middle[f"{name}_block0"] = block(channels, channels, attends=True)
        self.middle[f"{name}_block1"] = block(channels, channels)
        self.decoder = nn.ModuleDict()
        for level, (size, name, out_channels) in reversed(list(enumerate(levels))):
            if level < len(levels) - 1:
                self.decoder[f"{name}_up"] = block(channels, channels, resample="up")
            for index in range(config.num_res_blocks + 1):
                self.decoder[f"{name}_block{index}"] = block(channels + skips.pop(), out_channels, config.attends(size))
                channels = out_channels
        assert not skips, "the decoder uses every feature map of the encoder"
        self.norm_out = normalization(channels)
        self.conv_out = zero_init(nn.Conv2d(channels, self.out_channels, 3, padding=1))

    def in_float32(self) -> Iterable[nn.Module]:
        """The layers that compute in float32 at any precision: y_0_hat amplifies the output's error."""
        yield self.conv_out
        yield from self.embed_noise_level.modules()
        if self.config.input_noise:
            yield from self.embed_input_noise.modules()

    def recompute_activations(self) -> None:
        """Enable activation checkpointing: keep only each block's input and recompute the rest in the backward pass."""
        for part in (self.encoder, self.middle, self.decoder):
            for block in _blocks(part):
                block.recomputes = True

    def forward(
        self,
        x_up: Tensor | None,
        y_t: Tensor,
        gamma: Tensor,
        classes: Tensor | None = None,
        input_noise: Tensor | None = None,
    ) -> Tensor:
        """Predict the training target.

        Args:
            x_up: low-resolution image, upsampled to the output's size, (B, 3, H, W) in about [-1, 1]; None for a base
                model. For a field of C channels with K extra ones (B, C + K, H, W).
            y_t: noisy image, (B, 3, H, W); of a field (B, C, H, W), and so is what is returned.
            gamma: noise level of y_t, (B,) in (0, 1].
            classes: class of each image, (B,) int64 in 0..num_classes, where num_classes is "no class"; None is the
                same as "no class" for all images.
            input_noise: standard deviation of the noise in x_up's low-resolution image, (B,) in [0, 1); None is the
                same as 0 for all images.

        Returns:
            (B, 3, H, W); with a learned variance (B, 6, H, W), see learned_variance.split_variance.

        Raises:
            ValueError: H or W is not a multiple of size_multiple, or x_up or classes do not match the configuration.
        """
        self.check_inputs(x_up, y_t, classes, input_noise)
        embedding = self.embed_noise_level(gamma)
        if self.config.num_classes is not None:
            none = torch.full_like(gamma, self.config.num_classes, dtype=torch.int64)
            embedding = embedding + self.embed_class(none if classes is None else classes)
        if self.config.input_noise:
            level = torch.zeros_like(gamma) if input_noise is None else input_noise
            embedding = embedding + self.embed_input_noise(1 - level.square())
        h = self.conv_in(y_t if x_up is None else torch.cat([x_up, y_t], dim=1))  # (B, base_channels, H, W)
        skips = [h]
        for block in _blocks(self.encoder):
            h = block(h, embedding)
            skips.append(h)
        for block in _blocks(self.middle):
            h = block(h, embedding)
        for block in _blocks(self.decoder):
            h = block(h, embedding, skips.pop() if block.resample is None else None)
        # y_0_hat amplifies the output's error, up to 151 times for epsilon.
        return call_in_float32(self._output, h.float())

    def _output(self, h: Tensor) -> Tensor:
        return self.conv_out(functional.silu(self.norm_out(h)))


class UNetBlock(ResidualBlock):
    """A residual block, followed by self-attention at some resolutions.

    Args:
        num_heads: number of attention heads; None for no attention. The other arguments are ResidualBlock's.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        embedding_channels: int,
        dropout: float,
        resample: Resampling | None = None,
        num_heads: int | None = None,
        branch_init: float = 0.0,
    ) -> None:
        super().__init__(in_channels, out_channels, embedding_channels, dropout, resample, branch_init)
        self.attention = nn.Identity() if num_heads is None else SelfAttention(out_channels, num_heads, branch_init)
        self.recomputes = False

    def forward(self, h: Tensor, embedding: Tensor, skip: Tensor | None = None) -> Tensor:
        """(B, in_channels, H, W) and (B, embedding_channels) -> (B, out_channels, H', W').

        A decoder's block takes its input as two maps, of in_channels together: were they concatenated outside,
        recomputation would keep them twice.
        """
        if self.recomputes and torch.is_grad_enabled():
            return cast("Tensor", checkpoint(self._compute, h, embedding, skip, use_reentrant=False))
        return self._compute(h, embedding, skip)

    def _compute(self, h: Tensor, embedding: Tensor, skip: Tensor | None) -> Tensor:
        h = h if skip is None else torch.cat([h, skip], dim=1)
        return self.attention(super().forward(h, embedding))


def _blocks(part: nn.ModuleDict) -> Iterable[UNetBlock]:
    return cast("Iterable[UNetBlock]", part.values())


def num_parameters(model: nn.Module) -> int:
    """Number of trainable parameters; works on the meta device."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def zero_inputs(config: UNetConfig, size: tuple[int, int]) -> tuple[Tensor | None, Tensor]:
    """x_up and y_t of one image of a size, all zeros, on torch's default device: to count what a network does."""
    image = torch.zeros(1, config.image_channels, *size)
    extra = torch.zeros(1, config.extra_channels, *size)
    return (torch.cat([image, extra], dim=1) if config.conditional else None), image
