"""What torch.compile must leave as it is. Importing this module imports the compiler, which takes two CPU seconds."""

from collections.abc import Callable

import torch
from torch import Tensor


@torch.compiler.disable  # pyright: ignore[reportUnknownMemberType]
def call_uncompiled(function: Callable[..., Tensor], *arguments: object) -> Tensor:
    """Call a function whose operations are not to be compiled, nor those that it calls."""
    return function(*arguments)
