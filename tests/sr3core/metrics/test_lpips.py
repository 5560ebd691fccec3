"""LPIPS: against its definition written with other operations, and what a distance has to do."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from sr3core.errors import CheckpointError, DataError
from sr3core.metrics.lpips import LAYERS, Lpips, load_lpips
from sr3core.randomness import keyed_generator

NAMES = ("net.slice1.0", "net.slice2.3", "net.slice3.6", "net.slice4.8", "net.slice5.10")


def seeded_weights() -> dict[str, torch.Tensor]:
    generator = keyed_generator(0, "lpips")
    weights = {"scaling_layer.shift": torch.zeros(1, 3, 1, 1), "lins.0.model.1.weight": torch.zeros(1, 64, 1, 1)}
    for index, (channels_in, channels_out, kernel, *_) in enumerate(LAYERS):
        shape = (channels_out, channels_in, kernel, kernel)
        weights[f"{NAMES[index]}.weight"] = torch.randn(shape, generator=generator) / (channels_in * kernel**2) ** 0.5
        weights[f"{NAMES[index]}.bias"] = 0.1 * torch.randn(channels_out, generator=generator)
        weights[f"lin{index}.model.1.weight"] = torch.rand((1, channels_out, 1, 1), generator=generator)
    return weights


@pytest.fixture(scope="module")
def images(photos) -> np.ndarray:
    """Real photos, (4, 64, 64, 3)."""
    paths = sorted(photos.glob("*.jpg"))[:4]
    return np.stack([np.asarray(Image.open(path).convert("RGB").resize((64, 64))) for path in paths])


def blurred(images: np.ndarray, radius: float) -> np.ndarray:
    return np.stack([np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(radius))) for image in images])


def test_equals_its_definition_in_modules_and_einsum(images):
    weights = seeded_weights()
    modules = []
    for name, (channels_in, channels_out, kernel, stride, padding, pooled) in zip(NAMES, LAYERS, strict=True):
        convolution = torch.nn.Conv2d(channels_in, channels_out, kernel, stride, padding)
        convolution.load_state_dict({part: weights[f"{name}.{part}"] for part in ("weight", "bias")})
        pool = [torch.nn.MaxPool2d(3, 2)] if pooled else []
        modules.append(torch.nn.Sequential(*pool, convolution, torch.nn.ReLU()))

    def features(batch: np.ndarray) -> list[np.ndarray]:
        scaled = (batch / 127.5 - 1 - np.array([-0.030, -0.088, -0.188])) / np.array([0.458, 0.448, 0.450])
        x = torch.from_numpy(scaled).float().permute(0, 3, 1, 2)
        found = []
        for module in modules:
            x = module(x)
            found.append(x.detach().numpy().astype(np.float64))
        return found

    others = blurred(images, 2)
    expected = np.zeros(len(images))
    for index, (ours, theirs) in enumerate(zip(features(images), features(others), strict=True)):
        unit = [each / (np.linalg.norm(each, axis=1, keepdims=True) + 1e-10) for each in (ours, theirs)]
        weight = weights[f"lin{index}.model.1.weight"].numpy().ravel()
        expected += np.einsum("c,bchw->bhw", weight, (unit[0] - unit[1]) ** 2).mean(axis=(1, 2))
    np.testing.assert_allclose(Lpips(weights)(images, others).numpy(), expected, rtol=1e-4)


def test_zero_for_equal_images_symmetric_and_growing_with_blur(images):
    lpips = Lpips(seeded_weights())
    assert lpips(images, images).tolist() == [0] * 4
    weak, strong = blurred(images, 1), blurred(images, 4)
    torch.testing.assert_close(lpips(images, weak), lpips(weak, images))
    assert (lpips(images, weak) < lpips(images, strong)).all()


def test_an_images_distance_does_not_depend_on_its_batch(images):
    lpips, others = Lpips(seeded_weights()), blurred(images, 2)
    alone = torch.cat([lpips(images[i : i + 1], others[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(lpips(images, others), alone, rtol=1e-5, atol=0)


def test_unfit_images_and_weights_of_another_network_are_refused(images, tmp_path):
    lpips = Lpips(seeded_weights())
    with pytest.raises(DataError, match="at least 31 pixels"):
        lpips(images[:, :30], images[:, :30])
    with pytest.raises(DataError, match="differ in shape"):
        lpips(images, images[:2])
    torch.save({"fc.weight": torch.zeros(2, 2)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"other.pth: weights do not fit LPIPS on AlexNet: missing net.slice1.0"):
        load_lpips(tmp_path / "other.pth")
