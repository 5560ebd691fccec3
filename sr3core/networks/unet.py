"""The U-Net of Figure A.1: x_up beside y_t in, one image out, conditioned on gamma, and a base model on a class."""

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from sr3core.hyperparameters import UNetConfig
from sr3core.networks.blocks import (
    NoiseLevelEmbedding,
    ResidualBlock,
    SelfAttention,
    conv3x3,
    normalization,
    zero_init,
)
from sr3core.networks.precision import in_float32

IMAGE_CHANNELS = 3


class UNet(nn.Module):
    """f(x_up, y_t, gamma) of Figure A.1. It is convolutional: any multiples of size_multiple will do as H and W."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        width, embedding = config.base_channels, 4 * config.base_channels
        self.embed_noise_level = NoiseLevelEmbedding(width)
        if config.num_classes is not None:
            self.embed_class = nn.Embedding(config.num_classes + 1, embedding)  # the last row: no class
        self.conv_in = conv3x3(IMAGE_CHANNELS * (2 if config.conditional else 1), width)

        def block(in_channels: int, out_channels: int, resample: str | None = None) -> ResidualBlock:
            return ResidualBlock(in_channels, out_channels, embedding, config.dropout, resample)

        def attention(level: int, channels: int) -> nn.Module:
            size = config.image_size // 2**level
            return SelfAttention(channels, config.num_heads) if size in config.attention_sizes else nn.Identity()

        levels = len(config.channel_multipliers)
        widths = [width * multiplier for multiplier in config.channel_multipliers]
        skips = [width]  # channels of the feature maps that the decoder will take back
        channels = width
        self.encoder = nn.ModuleList()
        for level in range(levels):
            for _ in range(config.num_res_blocks):
                self.encoder.append(Layer(block(channels, widths[level]), attention(level, widths[level])))
                channels = widths[level]
                skips.append(channels)
            if level < levels - 1:
                self.encoder.append(Layer(block(channels, channels, "down")))
                skips.append(channels)
        attending = Layer(block(channels, channels), SelfAttention(channels, config.num_heads))
        self.middle = nn.ModuleList([attending, Layer(block(channels, channels))])
        self.decoder = nn.ModuleList()
        for level in reversed(range(levels)):
            for _ in range(config.num_res_blocks + 1):
                wide = block(channels + skips.pop(), widths[level])
                self.decoder.append(Layer(wide, attention(level, widths[level]), takes_skip=True))
                channels = widths[level]
            if level > 0:
                self.decoder.append(Layer(block(channels, channels, "up")))
        assert not skips, "every feature map of the encoder is taken back"
        self.norm_out = normalization(channels)
        self.conv_out = zero_init(nn.Conv2d(channels, self.out_channels, 3, padding=1))

    @property
    def out_channels(self) -> int:
        """Channels of the output: an image's, and as many again for a learned variance."""
        return IMAGE_CHANNELS * (2 if self.config.learned_variance else 1)

    @property
    def size_multiple(self) -> int:
        """What H and W must be multiples of."""
        return 2 ** (len(self.config.channel_multipliers) - 1)

    def recompute_activations(self) -> None:
        """From now on keep only what enters each layer, and compute the rest again in the backward pass."""
        for layer in (*self.encoder, *self.middle, *self.decoder):
            assert isinstance(layer, Layer)
            layer.recomputes = True

    def forward(self, x_up: Tensor | None, y_t: Tensor, gamma: Tensor, classes: Tensor | None = None) -> Tensor:
        """Predict the training target.

        Args:
            x_up: low-resolution image at the output's size, (B, 3, H, W) in about [-1, 1]; None for a base model.
            y_t: noisy image, (B, 3, H, W).
            gamma: its noise level, (B,) in (0, 1].
            classes: class of each image, (B,) int64 in 0..num_classes, num_classes being "no class"; None is that for
                all images.

        Returns:
            (B, 3, H, W); with a learned variance (B, 6, H, W), as learned_variance.split_variance takes it.

        Raises:
            ValueError: H or W is no multiple of size_multiple, or x_up or classes do not go with the configuration.
        """
        if (x_up is not None) != self.config.conditional:
            raise ValueError(f"x_up is {'missing' if self.config.conditional else 'not wanted'}")
        if classes is not None and self.config.num_classes is None:
            raise ValueError("classes are not wanted")
        if y_t.shape[-1] % self.size_multiple or y_t.shape[-2] % self.size_multiple:
            raise ValueError(f"height and width must be multiples of {self.size_multiple}, got {tuple(y_t.shape[-2:])}")
        embedding = self.embed_noise_level(gamma)
        if self.config.num_classes is not None:
            none = torch.full_like(gamma, self.config.num_classes, dtype=torch.int64)
            embedding = embedding + self.embed_class(none if classes is None else classes)
        h = self.conv_in(y_t if x_up is None else torch.cat([x_up, y_t], dim=1))
        kept = [h]
        for layer in self.encoder:
            h = layer(h, embedding)
            kept.append(h)
        for layer in self.middle:
            h = layer(h, embedding)
        for layer in self.decoder:
            h = layer(torch.cat([h, kept.pop()], dim=1) if layer.takes_skip else h, embedding)
        # In float32 always: what the output is off by is amplified, up to 151 times for epsilon, in y_0_hat.
        with in_float32(h.device):
            return self.conv_out(functional.silu(self.norm_out(h.float())))


class Layer(nn.Module):
    """A residual block and, at some sizes, self-attention."""

    def __init__(self, block: ResidualBlock, attention: nn.Module | None = None, takes_skip: bool = False) -> None:
        super().__init__()
        self.block = block
        self.attention = attention or nn.Identity()
        self.takes_skip = takes_skip
        self.recomputes = False

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        """(B, C, H, W) and (B, E) -> (B, C', H', W')."""
        if self.recomputes and torch.is_grad_enabled():
            return checkpoint(self._compute, h, embedding, use_reentrant=False)
        return self._compute(h, embedding)

    def _compute(self, h: Tensor, embedding: Tensor) -> Tensor:
        return self.attention(self.block(h, embedding))


def num_parameters(model: nn.Module) -> int:
    """Count trainable values; works on the meta device."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
