"""Random numbers as a pure function of (seed, purpose, index), independent of rank, batch split and global state."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # processes that only prepare data avoid torch's 200 MB
    import torch


NOISE_VERSION = 2
"""Version of the images' noise (diffusion.noise): with another, the same seed gives other images. Version 1 came from
torch's CPU generators."""


def derive_seed(seed: int, purpose: str, *index: int | str) -> int:
    """Derive an independent 63-bit seed for one purpose and index."""
    text = "/".join([str(seed), purpose, *map(str, index)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def keyed_generator(seed: int, purpose: str, *index: int | str, device: str | torch.device = "cpu") -> torch.Generator:
    """Create a torch generator that yields the same numbers for the same (seed, purpose, index) on any machine."""
    import torch

    return torch.Generator(device).manual_seed(derive_seed(seed, purpose, *index))


def uniform(seed: int, purpose: str, *index: int | str) -> float:
    """A number in [0, 1), uniform in steps of 2^-53, for one purpose and index."""
    return (derive_seed(seed, purpose, *index) >> 10) * 2.0**-53
