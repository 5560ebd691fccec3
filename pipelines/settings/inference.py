"""How trained networks are run, whichever command runs them."""

from dataclasses import dataclass, field

from sr3core.config import PLACEMENT
from sr3core.hyperparameters import InferencePrecision


@dataclass(frozen=True, kw_only=True, slots=True)
class InferenceConfig:
    """How trained networks are run: what sr3core.networks.inference does to them."""

    precision: InferencePrecision = "tf32"
    """float32; tf32, which is float32 with the multiplications of GPUs in TensorFloat-32; or bfloat16, in half of the
    memory, for GPUs. The images differ by a rounding."""
    compile: bool = field(default=False, metadata=PLACEMENT)
    """torch.compile the networks, on GPUs in CUDA graphs: a minute or more at the start, for many images; where it
    fails, they run as they are."""
