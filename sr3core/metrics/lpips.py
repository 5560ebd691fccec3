"""LPIPS on AlexNet (Zhang et al., 2018): perceptual distance of two images; not in the paper."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from sr3core.errors import CheckpointError, DataError
from sr3core.features.weights import fingerprint, misfits, read_weights
from sr3core.images.pixels import as_images
from sr3core.networks.precision import exact_float32

LAYERS = (  # input and output channels, kernel, stride, padding, and whether a max-pool precedes the layer
    (3, 64, 11, 4, 2, False),
    (64, 192, 5, 1, 2, True),
    (192, 384, 3, 1, 1, True),
    (384, 256, 3, 1, 1, False),
    (256, 256, 3, 1, 1, False),
)
SMALLEST = 31
"""Smallest side of an image, in pixels, for which the last layers have an output."""
_OFFICIAL = ("net.slice1.0", "net.slice2.3", "net.slice3.6", "net.slice4.8", "net.slice5.10")
"""Names of the convolutions in the state_dict of lpips.LPIPS(net="alex"); lin0..lin4 hold the weights of the layers."""
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)


class Lpips(nn.Module):
    """Version 0.1 of LPIPS with AlexNet.

    Args:
        weights: name -> tensor, with the names of `lpips.LPIPS(net="alex").state_dict()`.

    Raises:
        CheckpointError: the weights belong to another network.
    """

    def __init__(self, weights: dict[str, Tensor]) -> None:
        super().__init__()
        wanted: dict[str, tuple[int, ...]] = {}
        for index, (channels_in, channels_out, kernel, *_) in enumerate(LAYERS):
            wanted[f"{_OFFICIAL[index]}.weight"] = (channels_out, channels_in, kernel, kernel)
            wanted[f"{_OFFICIAL[index]}.bias"] = (channels_out,)
            wanted[f"lin{index}.model.1.weight"] = (1, channels_out, 1, 1)
        # The official file also contains constants, and lin0..lin4 under a second name.
        kept = {name: value for name, value in weights.items() if not name.startswith(("scaling_layer.", "lins."))}
        if problems := misfits(kept, wanted):
            raise CheckpointError(f"weights do not fit LPIPS on AlexNet: {problems}")
        self.name = f"lpips-{fingerprint(kept)[:12]}"
        for name, value in kept.items():
            self.register_buffer(name.replace(".", "_"), value.float())

    @torch.no_grad()
    @exact_float32()
    def forward(self, images: np.ndarray | Tensor, references: np.ndarray | Tensor) -> Tensor:
        """Compute the distance of each image from its reference: uint8 RGB (B, H, W, 3) twice -> float64 (B,).

        Raises:
            DataError: images are not uint8 RGB, shapes differ, or a side is smaller than SMALLEST.
        """
        pair = as_images(images, "images"), as_images(references, "references")
        if pair[0].shape != pair[1].shape:
            raise DataError(f"images and references differ in shape: {tuple(pair[0].shape)}, {tuple(pair[1].shape)}")
        if min(pair[0].shape[1:3]) < SMALLEST:
            raise DataError(f"LPIPS needs images of at least {SMALLEST} pixels per side, got {tuple(pair[0].shape)}")
        total = torch.zeros(len(pair[0]), dtype=torch.float64)
        for index, (ours, theirs) in enumerate(zip(*map(self._features, pair), strict=True)):
            gap = (_normalised(ours) - _normalised(theirs)).square()
            weighted = functional.conv2d(gap, self.get_buffer(f"lin{index}_model_1_weight"))
            total += weighted.mean(dim=(1, 2, 3)).double().cpu()
        return total

    def _features(self, images: Tensor) -> list[Tensor]:
        weight = self.get_buffer("lin0_model_1_weight")
        shift, scale = (weight.new_tensor(values)[:, None, None] for values in (_SHIFT, _SCALE))
        # (B, H, W, 3) -> (B, 3, H, W)
        x = (images.to(weight.device).movedim(-1, 1).float() / 127.5 - 1 - shift) / scale
        found: list[Tensor] = []
        for name, (*_, stride, padding, pooled) in zip(_OFFICIAL, LAYERS, strict=True):
            x = functional.max_pool2d(x, 3, 2) if pooled else x
            kernel, bias = (self.get_buffer(f"{name}.{part}".replace(".", "_")) for part in ("weight", "bias"))
            x = functional.conv2d(x, kernel, bias, stride=stride, padding=padding).relu()
            found.append(x)
        return found


def _normalised(features: Tensor) -> Tensor:
    """Scale the channel vector at each position to unit length."""
    return features / (features.square().sum(dim=1, keepdim=True).sqrt() + 1e-10)


def load_lpips(path: str | Path) -> Lpips:
    """Load `lpips.LPIPS(net="alex").state_dict()` saved by torch.save, or a safetensors file with the same names.

    Raises:
        CheckpointError: the file cannot be read or belongs to another network.
    """
    try:
        return Lpips(read_weights(Path(path)))
    except CheckpointError as error:
        raise CheckpointError(f"--lpips: {path}: {error}") from error
