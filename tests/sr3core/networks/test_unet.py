"""Figure A.1 and Table A.1."""

from dataclasses import replace

import pytest
import torch

from sr3core.diffusion.schedules import training_gammas
from sr3core.errors import ConfigError
from sr3core.hyperparameters import NoiseScheduleConfig, UNetConfig
from sr3core.networks import architectures
from sr3core.networks.blocks import NOISE_LEVEL_SCALE, ResidualBlock, SelfAttention, sinusoids
from sr3core.networks.unet import UNet, num_parameters


@pytest.mark.parametrize(
    ("row", "millions"),
    [("unet_16_128", 550), ("unet_64_256", 625), ("unet_64_512", 625), ("unet_256_1024", 150)],
)
def test_table_a1_parameter_counts_within_3_percent(row, millions):
    with torch.device("meta"):
        network = UNet(getattr(architectures, row)())
    assert num_parameters(network) / 1e6 == pytest.approx(millions, rel=0.03)


@pytest.mark.parametrize(("width", "millions"), [(64, 30), (96, 68), (128, 120), (192, 270)])
def test_improved_ddpms_parameter_counts_within_4_percent(width, millions):
    """Nichol and Dhariwal's (2021) four widths of the ImageNet 64x64 model, which has no classes there."""
    config = replace(architectures.unet_improved_64(width), num_classes=None)
    with torch.device("meta"):
        network = UNet(config)
        with_classes = UNet(architectures.unet_improved_64(width))
    assert num_parameters(network) / 1e6 == pytest.approx(millions, rel=0.04)
    assert num_parameters(with_classes) - num_parameters(network) == 1001 * 4 * width


def tiny(**changes):
    return UNet(UNetConfig(**{"image_size": 16, "base_channels": 8, "channel_multipliers": (1, 2), "num_res_blocks": 1,
                              "attention_sizes": (8,), **changes}))  # fmt: skip


def test_figure_a1_at_its_example_sizes():
    """16 -> 128: the figure's activations are 128, 64, 32, 16 and 8 pixels wide."""
    config = UNetConfig(image_size=128, base_channels=4, channel_multipliers=(1, 2, 4, 8, 8), num_res_blocks=1)
    network = UNet(config)
    seen = []
    assert list(network.encoder)[:4] == ["128x128_block0", "64x64_down", "64x64_block0", "32x32_down"]
    for block in network.encoder.values():
        block.register_forward_hook(lambda module, inputs, output: seen.append(tuple(output.shape[1:])))
    with torch.no_grad():
        network(torch.zeros(1, 3, 128, 128), torch.zeros(1, 3, 128, 128), torch.ones(1))
    assert [(shape[0] // 4, shape[1]) for shape in seen[::2]] == [(1, 128), (2, 64), (4, 32), (8, 16), (8, 8)]
    attends = [isinstance(block.attention, SelfAttention) for block in network.encoder.values()][::2]
    assert attends == [False, False, False, True, False]


def test_an_untrained_network_predicts_nothing():
    output = tiny()(torch.randn(2, 3, 16, 16), torch.randn(2, 3, 16, 16), torch.rand(2))
    torch.testing.assert_close(output, torch.zeros(2, 3, 16, 16), rtol=0, atol=0)


def test_every_parameter_gets_a_gradient_once_the_zero_layers_have_moved():
    network = tiny()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    network(torch.randn(2, 3, 16, 16), torch.randn(2, 3, 16, 16), torch.rand(2)).square().mean().backward()
    assert [name for name, value in network.named_parameters() if not value.grad.abs().sum()] == []


def test_it_takes_other_sizes_and_refuses_those_that_cannot_be_halved():
    network = tiny()
    assert network(torch.zeros(1, 3, 10, 22), torch.zeros(1, 3, 10, 22), torch.ones(1)).shape == (1, 3, 10, 22)
    with pytest.raises(ValueError, match="multiples of 2"):
        network(torch.zeros(1, 3, 9, 16), torch.zeros(1, 3, 9, 16), torch.ones(1))


def test_a_base_model_has_no_condition():
    base = tiny(conditional=False)
    assert base(None, torch.zeros(1, 3, 16, 16), torch.ones(1)).shape == (1, 3, 16, 16)
    with pytest.raises(ValueError, match="not wanted"):
        base(torch.zeros(1, 3, 16, 16), torch.zeros(1, 3, 16, 16), torch.ones(1))
    with pytest.raises(ValueError, match="missing"):
        tiny()(None, torch.zeros(1, 3, 16, 16), torch.ones(1))


def moved(network):
    """A network whose zero-initialised layers say something."""
    with torch.no_grad():
        for index, parameter in enumerate(network.parameters()):
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(index)))
    return network.eval()


def test_the_class_changes_the_output_and_none_is_a_class_of_its_own():
    network = moved(tiny(conditional=False, num_classes=3))
    y_t, gamma = torch.randn(1, 3, 16, 16).expand(4, -1, -1, -1), torch.full((4,), 0.5)
    with torch.no_grad():
        outputs = network(None, y_t, gamma, torch.tensor([0, 1, 2, 3]))
        none = network(None, y_t, gamma)
    assert all(float((outputs[i] - outputs[j]).abs().max()) > 1e-3 for i in range(4) for j in range(i))
    torch.testing.assert_close(none, outputs[3:].expand(4, -1, -1, -1))
    with pytest.raises(ValueError, match="classes are not wanted"):
        tiny(conditional=False)(None, y_t, gamma, torch.tensor([0, 1, 2, 3]))


def test_a_learned_variance_is_as_many_channels_again_and_nothing_else_changes():
    with_variance, without = tiny(learned_variance=True), tiny()
    assert with_variance(torch.zeros(2, 3, 8, 8), torch.zeros(2, 3, 8, 8), torch.ones(2)).shape == (2, 6, 8, 8)
    shapes = {name: value.shape for name, value in without.state_dict().items()}
    grown = {name for name, value in with_variance.state_dict().items() if value.shape != shapes[name]}
    assert grown == {"conv_out.weight", "conv_out.bias"}


def test_a_block_with_a_silent_branch_scales_its_input_by_one_over_root_two():
    block, h = ResidualBlock(8, 8, 16, 0.0), torch.randn(1, 8, 4, 4)
    torch.testing.assert_close(block(h, torch.randn(1, 16)), h / 2**0.5)
    torch.testing.assert_close(SelfAttention(8)(h), h / 2**0.5)


def test_attention_is_softmax_of_scaled_products():
    attention, h = SelfAttention(4), torch.randn(1, 4, 2, 3)
    torch.nn.init.eye_(attention.out.weight.view(4, 4))
    q, k, v = attention.query_key_value(attention.norm(h)).reshape(3, 4, 6)
    weights = torch.softmax(q.T @ k / 2, dim=1)
    expected = (h + (v @ weights.T).reshape(1, 4, 2, 3)) / 2**0.5
    torch.testing.assert_close(attention(h), expected)


def test_heads_attend_each_on_its_own_channels():
    """Two heads are two attentions of half the width side by side, joined by the same output layer."""
    attention, h = SelfAttention(4, num_heads=2), torch.randn(1, 4, 2, 3)
    torch.nn.init.eye_(attention.out.weight.view(4, 4))
    q, k, v = attention.query_key_value(attention.norm(h)).reshape(3, 2, 2, 6)
    heads = [v[i] @ torch.softmax(q[i].T @ k[i] / 2**0.5, dim=1).T for i in range(2)]
    torch.testing.assert_close(attention(h), (h + torch.cat(heads).reshape(1, 4, 2, 3)) / 2**0.5)


def test_heads_of_fixed_width_are_more_where_there_are_more_channels():
    sizes = {"image_size": 16, "base_channels": 8, "channel_multipliers": (1, 2, 4), "attention_sizes": (8,)}
    network = UNet(UNetConfig(**sizes, num_res_blocks=1, head_channels=8))
    heads = {name: layer.num_heads for name, layer in network.named_modules() if isinstance(layer, SelfAttention)}
    assert heads["encoder.8x8_block0.attention"] == 2
    assert heads["middle.4x4_block0.attention"] == 4


def test_the_noise_levels_can_be_told_apart():
    """Unscaled, the embeddings of the 2000 trained levels span about one dimension; scaled, many."""
    gammas = torch.tensor(training_gammas(NoiseScheduleConfig())[1:])

    def effective_rank(embeddings):
        values = torch.linalg.svdvals(embeddings - embeddings.mean(0)).square()
        shares = values / values.sum()
        return float(torch.exp(-(shares * shares.clamp(min=1e-30).log()).sum()))

    assert NOISE_LEVEL_SCALE == 5000
    assert effective_rank(sinusoids(gammas, 64)) > 20
    assert effective_rank(sinusoids(gammas / NOISE_LEVEL_SCALE**2, 64)) < 1.5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": 15}, "image_size: 15 cannot be halved 1 times"),
        ({"dropout": 1.0}, "dropout"),
        ({"channel_multipliers": ()}, "channel_multipliers"),
        ({"num_res_blocks": 0}, "num_res_blocks"),
        ({"num_heads": 3}, "num_heads: 3 does not divide"),
        ({"head_channels": 3}, "head_channels: 3 does not divide the channels that attend"),
        ({"head_channels": 4, "num_heads": 2}, "head_channels: 4 excludes num_heads 2"),
        ({"num_classes": 0}, "num_classes: 0 is not positive"),
    ],
)
def test_impossible_networks_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        tiny(**changes)


@pytest.mark.parametrize("width", [12, 20, 24, 36, 100])
def test_any_width_that_the_configuration_takes_makes_a_network(width):
    config = UNetConfig(image_size=8, base_channels=width, channel_multipliers=(1, 3), num_res_blocks=1)
    with torch.device("meta"):
        output = UNet(config)(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8), torch.ones(1))
    assert output.shape == (1, 3, 8, 8)
