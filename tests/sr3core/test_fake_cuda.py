"""What training, sampling and features compute on a GPU mixes no devices and reads no value on the host."""

import pytest
import torch

from sr3core.batch import Batch
from sr3core.config import override
from sr3core.diffusion.noise import NoiseField, window_noise
from sr3core.diffusion.schedules import default_schedule
from sr3core.features.extractors import InceptionFID, SeededFeatures
from sr3core.features.inception import build_inception, weight_shapes
from sr3core.hyperparameters import OptimizerConfig, SamplerConfig
from sr3core.networks.layers import GroupNorm
from sr3core.networks.unet import UNet
from sr3core.training import Trainer, create_state
from sr3core.upscaling.cascade import generate, upscale
from sr3core.upscaling.stage import Stage, refine
from sr3core.upscaling.tiled_network import for_whole_images
from tests.sr3core.fake_cuda import fake_gpu, load_guard
from tests.sr3core.tiny_models import BASE, REGRESSION, RESIDUAL, SR3

SAMPLERS = [
    SamplerConfig(),
    SamplerConfig(variance=0.5, clip="dynamic"),
    SamplerConfig(algorithm="ddim", eta=0.5),
    SamplerConfig(algorithm="dpmpp_2m"),
    SamplerConfig(algorithm="heun", churn=0.2),
    SamplerConfig(project=2),
]


@pytest.fixture(scope="module", autouse=True)
def guard(tmp_path_factory):
    load_guard(tmp_path_factory.mktemp("guard"))


def stage_of(gpu, model, network, sampler=None):
    schedule = None if model.kind == "regression" else default_schedule(model.noise_schedule, 3, sampler)
    return Stage("8-16", model, gpu.network(network), schedule)


@pytest.mark.parametrize("model", [SR3, RESIDUAL, REGRESSION, BASE], ids=["sr3", "residual", "regression", "base"])
def test_the_losses_of_a_step(model):
    trainer = Trainer(model, OptimizerConfig(), 0)
    low = None if model.low_size is None else torch.zeros(4, 3, 8, 8)
    classes = torch.tensor([0, 1, 2, 0]) if model.unet.num_classes else None
    network, high = UNet(model.unet), torch.zeros(4, 3, model.high_size, model.high_size)
    with fake_gpu() as gpu:
        fake = Batch(
            None if low is None else gpu.tensor(low),
            gpu.tensor(high),
            (0, 1, 2, 3),
            classes=None if classes is None else gpu.tensor(classes),
        )
        losses = trainer.losses(gpu.network(network), fake, 0)
        assert losses.values.device.type == "cuda"
        assert losses.values.shape == (4,)


def test_an_update_stays_on_the_gpu():
    """All of a step behind the backward pass, which torch does not run without a device: clip, judge, Adam, average."""
    optimizer = OptimizerConfig(gradient_clip=1.0, bad_steps="skip", spike_factor=3.0)
    state = create_state(SR3, optimizer, seed=0)
    assert state.ema is not None
    with fake_gpu() as gpu:
        for network in (state.model, state.ema):
            gpu.network(network)
        weights = list(state.model.parameters())
        for weight in weights:
            weight.grad = torch.zeros_like(weight)
        state.optimizer = torch.optim.Adam(weights, 1e-4, fused=True)
        for _ in range(2):
            norm, is_bad = Trainer(SR3, optimizer, 0).update(state)
            assert (norm.device.type, is_bad.device.type, is_bad.dtype) == ("cuda", "cuda", torch.bool)
        assert {value.device.type for moments in state.optimizer.state.values() for value in moments.values()} == {
            "cuda"
        }


def test_the_losses_of_crops_and_of_whole_images_in_tiles(monkeypatch):
    monkeypatch.setattr("sr3core.upscaling.tile_grid.SMALLEST_DEFAULT_TILE", 8)
    model = override(SR3, high_size=32)  # crops of 16
    trainer, network = Trainer(model, OptimizerConfig(), 0), UNet(model.unet)
    with fake_gpu() as gpu:
        low, whole, crops = (gpu.tensor(torch.zeros(2, 3, side, side)) for side in (8, 32, 16))
        ours = gpu.network(network)
        cut = trainer.losses(ours, Batch(low, crops, (0, 1), corners=((0, 4), (16, 8))), 0)
        tiled = trainer.losses(for_whole_images(model, ours, batch=4), Batch(low, whole, (0, 1)), 0)
        assert {losses.values.device.type for losses in (cut, tiled)} == {"cuda"}


@pytest.mark.parametrize(
    "sampler", SAMPLERS, ids=lambda sampler: f"{sampler.algorithm}-{sampler.clip}-{sampler.project}"
)
@pytest.mark.parametrize("model", [SR3, RESIDUAL], ids=["sr3", "residual"])
def test_chains_of_whole_images_and_of_tiles(model, sampler):
    network, images, larger = UNet(model.unet).eval(), torch.zeros(2, 3, 8, 8), torch.zeros(2, 3, 16, 16)
    with torch.inference_mode(), fake_gpu() as gpu:
        stage, low = stage_of(gpu, model, network, sampler), gpu.tensor(images)
        assert upscale(stage, low, [0, 1]).device.type == "cuda"
        tiles = refine(stage, low, gpu.tensor(larger), NoiseField(0, "cuda").windows([(0, 0), (8, 5)]))
        assert (tiles.device.type, tiles.shape) == ("cuda", (2, 3, 16, 16))


def test_regression_and_images_from_noise():
    regression, base, low = UNet(REGRESSION.unet).eval(), UNet(BASE.unet).eval(), torch.zeros(2, 3, 8, 8)
    with torch.inference_mode(), fake_gpu() as gpu:
        assert upscale(stage_of(gpu, REGRESSION, regression), gpu.tensor(low), [0, 1]).device.type == "cuda"
        assert generate([stage_of(gpu, BASE, base)], [0, 1], [1, 2]).device.type == "cuda"


def inception():
    with torch.device("meta"):
        shapes = weight_shapes(build_inception())
    return InceptionFID({name: torch.ones(shape) for name, shape in shapes.items()})


@pytest.mark.parametrize("make", [SeededFeatures, inception])
def test_features(make):
    network, images = make(), torch.zeros(2, 3, 32, 32)
    with torch.inference_mode(), fake_gpu() as gpu:
        embedded = gpu.network(network).embed(gpu.tensor(images))  # type: ignore[operator]
        assert (embedded.device.type, embedded.shape) == ("cuda", (2, network.dim))


def test_noise_is_made_on_the_device():
    with fake_gpu():
        assert window_noise([1, 2], 0, [(0, 0), (0, 0)], (3, 16, 16), "cuda").device.type == "cuda"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("grad", [True, False])
def test_group_normalisation_keeps_type_and_layout_on_a_gpu(dtype, grad):
    layer, maps = GroupNorm(2, 8), torch.zeros(2, 8, 4, 4, dtype=dtype).contiguous(memory_format=torch.channels_last)
    with fake_gpu() as gpu, torch.set_grad_enabled(grad):
        out = gpu.network(layer)(gpu.tensor(maps))
    assert out.dtype == dtype
    assert out.is_contiguous(memory_format=torch.channels_last)
