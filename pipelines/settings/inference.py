"""How trained networks are run, whichever command runs them."""

from dataclasses import dataclass, field

from sr3core.config import PLACEMENT
from sr3core.hyperparameters import Precision


@dataclass(frozen=True, kw_only=True, slots=True)
class InferenceConfig:
    """How trained networks are run; sr3core.networks.inference applies it."""

    precision: Precision = "tf32"
    """Arithmetic of the networks: float32, tf32 (float32 with GPU multiplications in TensorFloat-32) or bfloat16 (for
    GPUs, half the memory). The images differ by rounding only."""
    compile: bool = field(default=False, metadata=PLACEMENT)
    """Compile the networks with torch.compile, on GPUs with CUDA graphs. Costs a minute or more at the start, so it
    pays for many images; if compilation fails, the networks run uncompiled."""
