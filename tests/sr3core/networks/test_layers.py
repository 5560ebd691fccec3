"""Layers with faster ways on a CPU, against torch's own, in values and in gradients."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from sr3core.networks.layers import Conv1x1, GroupNorm, convolve_doubled, normalise_elementwise


def values_and_gradients(function, inputs: list[Tensor]) -> list[Tensor]:
    """The output, and what a fixed random cotangent gives for each input."""
    output = function()
    cotangent = torch.randn(output.shape, generator=torch.Generator().manual_seed(1), dtype=output.dtype)
    return [output, *torch.autograd.grad(output, inputs, cotangent)]


def image_maps(*shape: int) -> Tensor:
    maps = torch.randn(shape, generator=torch.Generator().manual_seed(0)) + 0.5
    return maps.contiguous(memory_format=torch.channels_last).requires_grad_()


@pytest.mark.parametrize("shape", [(2, 8, 5, 3), (1, 12, 1, 1), (3, 16, 8, 8)])
def test_group_normalisation_is_torchs(shape):
    h, layer = image_maps(*shape), GroupNorm(shape[1] // 4, shape[1], eps=1e-6)
    with torch.no_grad():
        layer.weight.normal_()
        layer.bias.normal_()
    inputs = [h, layer.weight, layer.bias]
    ours = values_and_gradients(lambda: layer(h), inputs)
    theirs = values_and_gradients(
        lambda: functional.group_norm(h, shape[1] // 4, layer.weight, layer.bias, 1e-6), inputs
    )
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_elementwise_normalisation_of_gpus_is_torchs(dtype):
    h = image_maps(2, 12, 5, 3).detach().to(dtype)
    weight, bias = torch.randn(12), torch.randn(12)
    out, mean, rstd = normalise_elementwise(h, weight, bias, 3, 1e-6)
    expected, of_groups, scales = torch.native_group_norm(h.float().contiguous(), weight, bias, 2, 12, 15, 3, 1e-6)
    assert out.dtype == dtype
    torch.testing.assert_close(out.float(), expected, rtol=1e-5 if dtype == torch.float32 else 2**-8, atol=1e-5)
    torch.testing.assert_close((mean, rstd), (of_groups, scales))


def test_group_normalisations_gradient_is_the_slope_of_its_values():
    h, layer = image_maps(2, 8, 2, 3), GroupNorm(2, 8, eps=1e-6)
    direction = torch.randn_like(h)
    cotangent = torch.randn_like(h)
    (gradient,) = torch.autograd.grad(layer(h), h, cotangent)
    reach = 1e-2
    with torch.no_grad():
        slope = (layer(h + reach * direction) - layer(h - reach * direction)).mul(cotangent).sum() / (2 * reach)
    torch.testing.assert_close(slope, (gradient * direction).sum(), rtol=1e-2, atol=1e-3)


def test_group_normalisation_of_bfloat16_is_that_in_float32_rounded_once():
    rounded, layer = image_maps(1, 8, 4, 4).detach().bfloat16().requires_grad_(), GroupNorm(2, 8, eps=1e-6)
    with torch.autocast("cpu", torch.bfloat16):
        ours = values_and_gradients(lambda: layer(rounded), [rounded])
    whole = rounded.detach().float().requires_grad_()
    theirs = values_and_gradients(lambda: functional.group_norm(whole, 2, layer.weight, layer.bias, 1e-6), [whole])
    assert [value.dtype for value in ours] == [torch.float32, torch.bfloat16]
    torch.testing.assert_close(ours[0], theirs[0])
    torch.testing.assert_close(ours[1].float(), theirs[1], rtol=2**-8, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 8, 1, 5), (2, 8, 6, 5), (3, 8, 7, 4), (20, 8, 2, 2)])
def test_a_1x1_convolution_is_torchs_and_keeps_the_layout(shape):
    h, layer = image_maps(*shape), Conv1x1(8, 5, 1)
    inputs = [h, layer.weight, layer.bias]
    assert isinstance(layer.bias, nn.Parameter)
    ours = values_and_gradients(lambda: layer(h), inputs)
    theirs = values_and_gradients(lambda: functional.conv2d(h, layer.weight, layer.bias), inputs)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-4)
    assert ours[0].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("shape", [(1, 4, 1, 2), (2, 4, 3, 5), (2, 4, 8, 8)])
def test_the_convolution_of_a_doubled_map_is_that_of_the_map_doubled(shape):
    h, conv = image_maps(*shape), nn.Conv2d(4, 6, 3, padding=1)
    inputs = [h, conv.weight, conv.bias]
    ours = values_and_gradients(lambda: convolve_doubled(h, conv), inputs)
    theirs = values_and_gradients(lambda: conv(functional.interpolate(h, scale_factor=2, mode="nearest")), inputs)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-4)
    assert ours[0].is_contiguous(memory_format=torch.channels_last)
