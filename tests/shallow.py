"""A network that is as shallow as one can be, for tests of what surrounds it."""

from typing import Any

SHALLOW: dict[str, Any] = {"model__unet__channel_multipliers": (1,), "model__unet__attention_sizes": ()}
"""Changes to a stage: a step of a small preset takes a third of the time, which is one of the number of layers."""
