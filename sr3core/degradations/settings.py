"""Settings of the random degradations. No torch import: the command line loads this."""

from dataclasses import dataclass

from sr3core.hyperparameters import require
from sr3core.sizes import Size, sides_of

KERNEL_RADIUS = 10
"""Largest radius of a blur kernel, pixels."""

_PROBABILITIES = ("blur_probability", "noise_probability", "jpeg_probability", "grey_noise")


@dataclass(frozen=True, kw_only=True, slots=True)
class DegradationConfig:
    """How low-resolution images are made of the targets in training: blur, resizing, noise and JPEG, once or twice.

    The chain is SR3+'s (Sahak et al., 2023), which is Real-ESRGAN's without sharpening and ringing.
    """

    order: int = 0
    """Rounds of blur, resizing, noise and JPEG: 2 as in SR3+, 1, or 0 for the prepared low-resolution images."""
    blur_probability: float = 0.8
    """Probability of a blur, in each round. Half of the kernels are isotropic, half generalised Gaussians."""
    blur_sigma_min: float = 0.2
    """Smallest standard deviation of a kernel along an axis, pixels of the image as it is then."""
    blur_sigma_max: float = 3.0
    """Largest one in the first round; half of it in the second."""
    resize_min: float = 0.25
    """Smallest side that the first round resizes to, as a share of the target's."""
    resize_max: float = 1.0
    """Largest one. The last round resizes to the low-resolution size."""
    noise_probability: float = 0.8
    """Probability of noise, in each round: Gaussian or Poisson, in equal parts."""
    noise_sigma_max: float = 0.1
    """Largest standard deviation of Gaussian noise, on the scale of [0, 1], and of Poisson noise in white."""
    grey_noise: float = 0.4
    """Fraction of the noise that is the same in all channels."""
    jpeg_probability: float = 0.9
    """Probability of JPEG compression, in each round."""
    jpeg_quality_min: int = 30
    """Lowest quality of JPEG, on libjpeg's scale of 1 to 100."""
    jpeg_quality_max: int = 95
    """Highest one."""

    def __post_init__(self) -> None:
        require(self.order in (0, 1, 2), f"order: {self.order} is not 0, 1 or 2")
        for name in _PROBABILITIES:
            require(0 <= getattr(self, name) <= 1, f"{name}: {getattr(self, name)} is not in [0, 1]")
        require(
            0 < self.blur_sigma_min <= self.blur_sigma_max <= KERNEL_RADIUS / 3,
            f"blur_sigma_min, blur_sigma_max: 0 < {self.blur_sigma_min} <= {self.blur_sigma_max} <="
            f" {KERNEL_RADIUS / 3:.2f} does not hold",
        )
        require(
            0 < self.resize_min <= self.resize_max <= 2,
            f"resize_min, resize_max: 0 < {self.resize_min} <= {self.resize_max} <= 2 does not hold",
        )
        require(0 <= self.noise_sigma_max <= 1, f"noise_sigma_max: {self.noise_sigma_max} is not in [0, 1]")
        require(
            1 <= self.jpeg_quality_min <= self.jpeg_quality_max <= 100,
            f"jpeg_quality_min, jpeg_quality_max: 1 <= {self.jpeg_quality_min} <= {self.jpeg_quality_max} <= 100 does"
            " not hold",
        )

    def check_size(self, high_size: Size) -> None:
        """Check that something is left of an image of a stage's size.

        Raises:
            ConfigError: it becomes smaller than a blur kernel.
        """
        side = min(sides_of(high_size))
        smallest = min(int(side * self.resize_min), side) if self.order == 2 else side
        require(
            self.order == 0 or smallest > KERNEL_RADIUS,
            f"degradation.resize_min: {self.resize_min} leaves {smallest} of {side} pixels for the second blur,"
            f" whose kernels need {KERNEL_RADIUS + 1}; raise it, or take order 1",
        )
