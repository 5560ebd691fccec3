"""How trained networks are run, whichever command runs them."""

import math
from dataclasses import dataclass, field

from sr3core.config import ADDED, PLACEMENT
from sr3core.hyperparameters import Precision, require


@dataclass(frozen=True, kw_only=True, slots=True)
class InferenceConfig:
    """How trained networks are run; sr3core.networks.inference applies it."""

    precision: Precision = "tf32"
    """Arithmetic of the networks: float32, tf32 (float32 with GPU multiplications in TensorFloat-32) or bfloat16 (for
    GPUs, half the memory). The images differ by rounding only."""
    gpus: float | None = field(default=None, metadata=PLACEMENT)
    """GPUs of each copy of the networks; a fraction shares one, 0 computes on CPUs. None takes a GPU where the cluster
    has one. For stages that were trained on GPUs it also waits for one where an autoscaler may add it."""
    input_noise: float = field(default=0.0, metadata=ADDED)
    """Standard deviation of noise that is added to the input of stages that were trained with it (unet.input_noise), in
    units of which white and black are 2 apart: more of it trusts a blurred or noisy input less, and invents more."""
    compile: bool = field(default=False, metadata=PLACEMENT)
    """Compile the networks with torch.compile, on GPUs with CUDA graphs. Costs a minute or more at the start, so it
    pays for many images; if compilation fails, the networks run uncompiled."""

    def __post_init__(self) -> None:
        require(0 <= self.input_noise < 1, f"inference.input_noise: {self.input_noise} is not in [0, 1)")
        require(
            self.gpus is None or 0 <= self.gpus < math.inf, f"inference.gpus: {self.gpus} is negative or not finite"
        )

    @property
    def decides(self) -> tuple[str | float, ...]:
        """What of it decides the images; no noise on inputs is no part, as in earlier versions."""
        return (self.precision, self.input_noise) if self.input_noise else (self.precision,)
