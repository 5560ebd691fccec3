"""The re-implementation's network as plain functions of a state_dict, from the facts in its configurations and README.

Nothing here is shared with the program: names and shapes come from arithmetic, the forward pass from the names.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

Weights = dict[str, Tensor]
Shapes = dict[str, tuple[int, ...]]


def shapes_of(
    inner: int, multipliers: tuple[int, ...], res_blocks: int, attention: tuple[int, ...], size: int
) -> Shapes:
    """Name -> shape of every parameter below `denoise_fn.`."""
    found: Shapes = {}

    def layer(name: str, *shape: int, bias: bool = True) -> None:
        found[f"{name}.weight"] = shape
        if bias:
            found[f"{name}.bias"] = shape[:1]

    def block(name: str, before: int, after: int, attends: bool) -> None:
        inside = f"{name}.res_block"
        layer(f"{inside}.noise_func.noise_func.0", after, inner)
        for number, channels in ((1, before), (2, after)):
            layer(f"{inside}.block{number}.block.0", channels)
            layer(f"{inside}.block{number}.block.3", after, channels, 3, 3)
        if before != after:
            layer(f"{inside}.res_conv", after, before, 1, 1)
        if attends:
            layer(f"{name}.attn.norm", after)
            layer(f"{name}.attn.qkv", 3 * after, after, 1, 1, bias=False)
            layer(f"{name}.attn.out", after, after, 1, 1)

    layer("noise_level_mlp.1", 4 * inner, inner)
    layer("noise_level_mlp.3", inner, 4 * inner)
    layer("downs.0", inner, 6, 3, 3)
    maps, channels, place = [inner], inner, 1
    for level, multiplier in enumerate(multipliers):
        for _ in range(res_blocks):
            block(f"downs.{place}", channels, inner * multiplier, size // 2**level in attention)
            channels, place = inner * multiplier, place + 1
            maps.append(channels)
        if level < len(multipliers) - 1:
            layer(f"downs.{place}.conv", channels, channels, 3, 3)
            maps.append(channels)
            place += 1
    block("mid.0", channels, channels, True)
    block("mid.1", channels, channels, False)
    place = 0
    for level, multiplier in reversed(list(enumerate(multipliers))):
        for _ in range(res_blocks + 1):
            block(f"ups.{place}", channels + maps.pop(), inner * multiplier, size // 2**level in attention)
            channels, place = inner * multiplier, place + 1
        if level > 0:
            layer(f"ups.{place}.conv", channels, channels, 3, 3)
            place += 1
    layer("final_conv.block.0", channels)
    layer("final_conv.block.3", 3, channels, 3, 3)
    return found


def epsilon(weights: Weights, groups: int, x_up: Tensor, y_t: Tensor, level: Tensor) -> Tensor:
    """The network's output; level is sqrt(gamma), (B,)."""
    width = weights["noise_level_mlp.1.weight"].shape[1]
    rates = torch.exp(-math.log(1e4) * torch.arange(width // 2) / (width // 2))
    angles = level[:, None] * rates
    embedding = torch.cat([angles.sin(), angles.cos()], dim=-1)
    embedding = _linear(weights, "noise_level_mlp.1", embedding)
    embedding = _linear(weights, "noise_level_mlp.3", embedding * embedding.sigmoid())
    h, skips = _conv(weights, "downs.0", torch.cat([x_up, y_t], dim=1)), []
    skips.append(h)
    for place in range(1, _count(weights, "downs")):
        name = f"downs.{place}"
        down = f"{name}.conv.weight" in weights
        h = _conv(weights, f"{name}.conv", h, 2) if down else _block(weights, name, groups, h, embedding)
        skips.append(h)
    for place in range(2):
        h = _block(weights, f"mid.{place}", groups, h, embedding)
    for place in range(_count(weights, "ups")):
        name = f"ups.{place}"
        if f"{name}.conv.weight" in weights:
            h = _conv(weights, f"{name}.conv", h.repeat_interleave(2, 2).repeat_interleave(2, 3))
        else:
            h = _block(weights, name, groups, torch.cat([h, skips.pop()], dim=1), embedding)
    assert not skips
    return _normalised_conv(weights, "final_conv", groups, h)


def _count(weights: Weights, part: str) -> int:
    return 1 + max(int(name.split(".")[1]) for name in weights if name.startswith(f"{part}."))


def _linear(weights: Weights, name: str, values: Tensor) -> Tensor:
    return values @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def _conv(weights: Weights, name: str, h: Tensor, stride: int = 1) -> Tensor:
    kernel = weights[f"{name}.weight"]
    return functional.conv2d(h, kernel, weights.get(f"{name}.bias"), stride, padding=kernel.shape[-1] // 2)


def _norm(weights: Weights, name: str, groups: int, h: Tensor) -> Tensor:
    parts = h.reshape(len(h), groups, -1)
    centred = parts - parts.mean(-1, keepdim=True)
    scaled = (centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()).reshape(h.shape)
    return scaled * weights[f"{name}.weight"][:, None, None] + weights[f"{name}.bias"][:, None, None]


def _normalised_conv(weights: Weights, name: str, groups: int, h: Tensor) -> Tensor:
    h = _norm(weights, f"{name}.block.0", groups, h)
    return _conv(weights, f"{name}.block.3", h * h.sigmoid())


def _block(weights: Weights, name: str, groups: int, h: Tensor, embedding: Tensor) -> Tensor:
    inside = f"{name}.res_block"
    branch = _normalised_conv(weights, f"{inside}.block1", groups, h)
    branch = branch + _linear(weights, f"{inside}.noise_func.noise_func.0", embedding)[:, :, None, None]
    branch = _normalised_conv(weights, f"{inside}.block2", groups, branch)
    h = branch + (_conv(weights, f"{inside}.res_conv", h) if f"{inside}.res_conv.weight" in weights else h)
    return _attend(weights, f"{name}.attn", groups, h) if f"{name}.attn.norm.weight" in weights else h


def _attend(weights: Weights, name: str, groups: int, h: Tensor) -> Tensor:
    query, key, value = _conv(weights, f"{name}.qkv", _norm(weights, f"{name}.norm", groups, h)).flatten(2).chunk(3, 1)
    shares = torch.einsum("bcp,bcq->bpq", query, key).div(math.sqrt(h.shape[1])).softmax(-1)
    attended = torch.einsum("bpq,bcq->bcp", shares, value).reshape(h.shape)
    return h + _conv(weights, f"{name}.out", attended)
