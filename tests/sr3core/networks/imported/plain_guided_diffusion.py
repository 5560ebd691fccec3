"""guided-diffusion's upsampling network as plain functions of a state_dict, from its paper and its README's flags.

Nothing here is shared with the program: names and shapes come from arithmetic, the forward pass from the names.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

Weights = dict[str, Tensor]
Shapes = dict[str, tuple[int, ...]]


def shapes_of(
    width: int,
    multipliers: tuple[int, ...],
    res_blocks: int,
    attention: tuple[int, ...],
    size: int,
    classes: int = 1000,
) -> Shapes:
    """Name -> shape of every parameter."""
    found: Shapes = {}

    def layer(name: str, *shape: int) -> None:
        found[f"{name}.weight"], found[f"{name}.bias"] = shape, shape[:1]

    def residual(name: str, before: int, after: int) -> None:
        layer(f"{name}.in_layers.0", before)
        layer(f"{name}.in_layers.2", after, before, 3, 3)
        layer(f"{name}.emb_layers.1", 2 * after, 4 * width)
        layer(f"{name}.out_layers.0", after)
        layer(f"{name}.out_layers.3", after, after, 3, 3)
        if before != after:
            layer(f"{name}.skip_connection", after, before, 1, 1)

    def attend(name: str, channels: int) -> None:
        layer(f"{name}.norm", channels)
        layer(f"{name}.qkv", 3 * channels, channels, 1)
        layer(f"{name}.proj_out", channels, channels, 1)

    layer("time_embed.0", 4 * width, width)
    layer("time_embed.2", 4 * width, 4 * width)
    found["label_emb.weight"] = (1000, 4 * width)
    channels, place = width * multipliers[0], 1
    layer("input_blocks.0.0", channels, 6, 3, 3)
    maps = [channels]
    for level, multiplier in enumerate(multipliers):
        for _ in range(res_blocks):
            residual(f"input_blocks.{place}.0", channels, width * multiplier)
            channels = width * multiplier
            if size // 2**level in attention:
                attend(f"input_blocks.{place}.1", channels)
            maps.append(channels)
            place += 1
        if level < len(multipliers) - 1:
            residual(f"input_blocks.{place}.0", channels, channels)
            maps.append(channels)
            place += 1
    residual("middle_block.0", channels, channels)
    attend("middle_block.1", channels)
    residual("middle_block.2", channels, channels)
    place = 0
    for level, multiplier in reversed(list(enumerate(multipliers))):
        for block in range(res_blocks + 1):
            residual(f"output_blocks.{place}.0", channels + maps.pop(), width * multiplier)
            channels, next_layer = width * multiplier, 1
            if size // 2**level in attention:
                attend(f"output_blocks.{place}.1", channels)
                next_layer = 2
            if level > 0 and block == res_blocks:
                residual(f"output_blocks.{place}.{next_layer}", channels, channels)
            place += 1
    layer("out.0", channels)
    layer("out.2", 6, channels, 3, 3)
    return found


def epsilon_and_v(
    weights: Weights, groups: int, heads: int, multipliers: int, low: Tensor, y_t: Tensor, step: Tensor, label: Tensor
) -> Tensor:
    """The network's output: low is the low-resolution image, step (B,) in 0..T-1, label (B,) a class."""
    width = weights["time_embed.0.weight"].shape[1]
    rates = torch.exp(-math.log(10000) * torch.arange(width // 2) / (width // 2))
    angles = step[:, None] * rates
    embedding = _linear(weights, "time_embed.0", torch.cat([angles.cos(), angles.sin()], dim=-1))
    embedding = _linear(weights, "time_embed.2", _silu(embedding)) + weights["label_emb.weight"][label]
    x_up = functional.interpolate(low, y_t.shape[-2:], mode="bilinear")
    h, skips = _conv(weights, "input_blocks.0.0", torch.cat([y_t, x_up], dim=1)), []
    skips.append(h)
    num_in = _count(weights, "input_blocks")
    per_level = num_in // multipliers  # blocks of a level and the one that shrinks; the first level has the first conv
    for place in range(1, num_in):
        shrinks = place % per_level == 0
        h = _residual(weights, f"input_blocks.{place}.0", groups, h, embedding, _halved if shrinks else None)
        h = _attend(weights, f"input_blocks.{place}.1", groups, heads, h)
        skips.append(h)
    h = _residual(weights, "middle_block.0", groups, h, embedding)
    h = _attend(weights, "middle_block.1", groups, heads, h)
    h = _residual(weights, "middle_block.2", groups, h, embedding)
    for place in range(_count(weights, "output_blocks")):
        name = f"output_blocks.{place}"
        h = _residual(weights, f"{name}.0", groups, torch.cat([h, skips.pop()], dim=1), embedding)
        h = _attend(weights, f"{name}.1", groups, heads, h)
        for last in (f"{name}.1", f"{name}.2"):
            if f"{last}.in_layers.0.weight" in weights:
                h = _residual(weights, last, groups, h, embedding, _doubled)
    assert not skips
    return _conv(weights, "out.2", _silu(_norm(weights, "out.0", groups, h)))


def _count(weights: Weights, part: str) -> int:
    return 1 + max(int(name.split(".")[1]) for name in weights if name.startswith(f"{part}."))


def _silu(h: Tensor) -> Tensor:
    return h * h.sigmoid()


def _halved(h: Tensor) -> Tensor:
    return (h[..., ::2, ::2] + h[..., 1::2, ::2] + h[..., ::2, 1::2] + h[..., 1::2, 1::2]) / 4


def _doubled(h: Tensor) -> Tensor:
    return h.repeat_interleave(2, 2).repeat_interleave(2, 3)


def _linear(weights: Weights, name: str, values: Tensor) -> Tensor:
    return values @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def _conv(weights: Weights, name: str, h: Tensor) -> Tensor:
    kernel = weights[f"{name}.weight"]
    return functional.conv2d(h, kernel, weights[f"{name}.bias"], padding=kernel.shape[-1] // 2)


def _norm(weights: Weights, name: str, groups: int, h: Tensor) -> Tensor:
    parts = h.reshape(len(h), groups, -1)
    centred = parts - parts.mean(-1, keepdim=True)
    scaled = (centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()).reshape(h.shape)
    return scaled * weights[f"{name}.weight"][:, None, None] + weights[f"{name}.bias"][:, None, None]


def _residual(weights: Weights, name: str, groups: int, h: Tensor, embedding: Tensor, resample=None) -> Tensor:
    resample = resample or (lambda h: h)
    branch = resample(_silu(_norm(weights, f"{name}.in_layers.0", groups, h)))
    branch = _conv(weights, f"{name}.in_layers.2", branch)
    scale, shift = _linear(weights, f"{name}.emb_layers.1", _silu(embedding))[:, :, None, None].chunk(2, dim=1)
    branch = _silu(_norm(weights, f"{name}.out_layers.0", groups, branch) * (1 + scale) + shift)
    branch = _conv(weights, f"{name}.out_layers.3", branch)
    h = resample(h)
    return branch + (_conv(weights, f"{name}.skip_connection", h) if f"{name}.skip_connection.weight" in weights else h)


def _attend(weights: Weights, name: str, groups: int, heads: int, h: Tensor) -> Tensor:
    """Each head's query, key and value are neighbouring channels; without such a layer, h."""
    if f"{name}.qkv.weight" not in weights:
        return h
    flat = _norm(weights, f"{name}.norm", groups, h).flatten(2)
    qkv = torch.einsum("oc,bcp->bop", weights[f"{name}.qkv.weight"][..., 0], flat)
    qkv = qkv + weights[f"{name}.qkv.bias"][:, None]
    attended = []
    for head in qkv.chunk(heads, dim=1):
        query, key, value = head.chunk(3, dim=1)
        shares = torch.einsum("bcp,bcq->bpq", query, key).div(math.sqrt(query.shape[1])).softmax(-1)
        attended.append(torch.einsum("bpq,bcq->bcp", shares, value))
    out = torch.einsum("oc,bcp->bop", weights[f"{name}.proj_out.weight"][..., 0], torch.cat(attended, dim=1))
    return h + (out + weights[f"{name}.proj_out.bias"][:, None]).reshape(h.shape)
