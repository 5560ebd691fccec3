"""The few images and the network that schedules are found with where no distance is measured."""

from dataclasses import dataclass

from torch import Tensor

from sr3core.diffusion.equations import Denoiser
from sr3core.diffusion.noise import ImageNoise
from sr3core.diffusion.residual import Residual


@dataclass(frozen=True, eq=False, slots=True)
class Probe:
    """What the methods use: a few images and the network."""

    denoise: Denoiser
    x_up: Tensor
    """(B, 3, H, W)."""
    y_0: Tensor
    """What the chain draws, (B, 3, H, W)."""
    seeds: tuple[int, ...]
    residual: Residual | None = None
    """If the network was trained for residuals, of which y_0 is then one."""

    @property
    def noise(self) -> ImageNoise:
        """Every image's noise, from its start."""
        return ImageNoise(self.seeds, self.y_0.device)
