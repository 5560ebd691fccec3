"""The consistency projection: how much of the error it takes away, and that it leaves the right samples alone."""

import numpy as np
import pytest
import torch
from PIL import Image

from sr3core.diffusion.projection import BackProjection
from sr3core.diffusion.sampling import sample
from sr3core.diffusion.schedules import InferenceSchedule, default_schedule
from sr3core.errors import ConfigError
from sr3core.hyperparameters import Clipping, ModelConfig, SamplerConfig
from sr3core.images.pixels import to_float, to_uint8
from sr3core.images.resize import bicubic_weights, downsample_bicubic, resize_area, resize_bicubic, upsample_bicubic
from sr3core.metrics.consistency import consistency
from sr3core.networks.architectures import unet_tiny
from sr3core.networks.unet import UNet
from sr3core.randomness import keyed_generator
from sr3core.upscaling.cascade import upscale
from sr3core.upscaling.stage import Stage
from tests.sr3core.targets import OneStream, plan


@pytest.fixture(scope="module")
def low(photos):
    pictures = [np.asarray(Image.open(path)) for path in sorted(photos.glob("*.jpg"))[:3]]
    return np.stack([resize_bicubic(resize_area(picture, 32), 16) for picture in pictures])


def stage(project, clip: Clipping = "static"):
    """A network of random weights: nothing that it makes is consistent by itself."""
    model = ModelConfig(low_size=16, high_size=32, unet=unet_tiny(32, 8))
    network = UNet(model.unet).eval()
    with torch.no_grad():
        for index, parameter in enumerate(network.parameters()):
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=keyed_generator(index, "weights")))
    sampler = SamplerConfig(algorithm="ddim", project=project, clip=clip)
    return Stage("toy", model, network, default_schedule(model.noise_schedule, 4, sampler))


def error(images, low):
    return float((downsample_bicubic(images, low.shape[-2:]) - low).square().mean())


def test_every_iteration_takes_most_of_the_error_away(low):
    """On photos enlarged by bicubic, in float: about a fifth is left by the first, less than a third by each later."""
    x = to_float(low)
    image = upsample_bicubic(x, 64)
    project = BackProjection(x, (64, 64))
    errors = [error(image, x)]
    for _ in range(5):
        image = project(image)
        errors.append(error(image, x))
    ratios = np.array(errors[1:]) / errors[:-1]
    assert ratios[0] < 0.25
    assert np.all(ratios < 0.5)
    assert errors[2] < errors[0] / 10
    assert errors[5] < errors[0] / 150


@pytest.mark.parametrize("shape", [(16, 16), (13, 9)])  # the latter is padded for the network
def test_a_projected_chain_is_consistent_with_its_input(low, shape):
    x = to_float(low[:, : shape[0], : shape[1]].copy())
    images = [upscale(stage(project), x, [1, 2, 3]) for project in (0, 1, 2, 5)]
    values = [consistency(to_uint8(image), to_uint8(x)).mean() for image in images]
    assert all(image.shape == (3, 3, 2 * shape[0], 2 * shape[1]) for image in images)
    assert values[1] < values[0] / 4
    assert values[2] < values[0] / 10
    assert values[3] < values[0] / 50


def test_only_what_belongs_to_the_input_is_compared_with_it():
    generator = keyed_generator(0, "images")
    x = torch.rand(2, 3, 5, 7, generator=generator) * 2 - 1
    y_0_hat = torch.randn(2, 3, 16, 16, generator=generator)
    found = BackProjection(x, (10, 14))(y_0_hat)
    visible = y_0_hat[..., :10, :14]
    expected = visible + upsample_bicubic(x - downsample_bicubic(visible, (5, 7)), (10, 14))
    torch.testing.assert_close(found[..., :10, :14], expected, rtol=1e-5, atol=1e-5)
    change = found - y_0_hat
    torch.testing.assert_close(change[..., :10, 14:], change[..., :10, 13:14].expand(-1, -1, -1, 2))
    torch.testing.assert_close(change[..., 10:, :], change[..., 9:10, :].expand(-1, -1, 6, -1))


@pytest.mark.parametrize("algorithm", ["ancestral", "dpmpp_2m"])
def test_right_samples_stay_and_a_shift_of_colour_goes(algorithm):
    """y_0 ~ N(0, I) given x = D y_0, whose denoiser is linear and consistent: projecting it must change nothing.

    A denoiser whose images are too bright by 0.3 gives samples that are too bright, but projected the right ones.
    """
    weights = torch.as_tensor(bicubic_weights(8, 4))
    matrix = torch.kron(weights, weights)  # D of an image as a vector
    inverse = torch.linalg.pinv(matrix)
    generator = keyed_generator(0, "x")
    y_0 = torch.randn(64, 1, 8, 8, generator=generator, dtype=torch.float64)
    x = downsample_bicubic(y_0, 4)
    centre = (x.flatten(1) @ inverse.T).view_as(y_0)

    def biased(shift):
        def denoise(x_up, y_t, gamma):
            gamma = gamma.view(-1, 1, 1, 1)
            away = (y_t - gamma.sqrt() * centre).flatten(1)
            free = (away - away @ matrix.T @ inverse.T).view_as(y_t)  # its part that x leaves open
            y_0_hat = centre + gamma.sqrt() * free + shift
            return (y_t - gamma.sqrt() * y_0_hat) / (1 - gamma).sqrt()

        return denoise

    def run(shift, project):
        schedule = plan("sigmoid", 20, SamplerConfig(algorithm=algorithm, clip="none", project=project), 1 - 1e-6)
        noise, projection = OneStream(1, torch.float64), BackProjection(x, (8, 8))
        return sample(biased(shift), None, y_0.shape, schedule, noise, projection=projection)

    right = run(0.0, 0)
    assert float((downsample_bicubic(right, 4) - x).abs().max()) < 1e-9
    torch.testing.assert_close(run(0.0, 2), right, rtol=1e-6, atol=1e-6)
    assert float((right - centre).square().mean()) == pytest.approx(48 / 64, abs=0.08)  # x leaves 48 of 64 values free
    assert float((run(0.3, 0) - right).mean()) > 0.25
    torch.testing.assert_close(run(0.3, 1), right, rtol=1e-6, atol=1e-6)


def test_a_schedule_below_the_trained_levels_is_refused_before_any_work():
    good = stage(0)
    deep = InferenceSchedule(gammas=(1.0, 0.5, 1e-9))
    with pytest.raises(ConfigError, match="gammas end at 1e-09, below the smallest noise level trained"):
        Stage("deep", good.model, good.network, deep)


def test_guidance_without_classes_is_refused(low):
    plain = stage(0)
    assert plain.schedule
    guided = InferenceSchedule(gammas=plain.schedule.gammas, sampler=SamplerConfig(guidance=2.0))
    with pytest.raises(ConfigError, match="guidance: the model was trained without classes"):
        upscale(Stage("guided", plain.model, plain.network, guided), to_float(low), [1, 2, 3])
