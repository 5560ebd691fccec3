"""Philox-4x32-10 (Salmon et al., 2011, "Parallel random numbers: as easy as 1, 2, 3") and Box-Muller on tensors.

A counter-based generator is a function: a key and a counter give four random words, whatever was drawn before, and on
whatever device. So noise is made where it is used, and is the same there as anywhere else.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF
_MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
_KEY_STEPS = 0x9E3779B9, 0xBB67AE85
_ROUNDS = 10

Words = Sequence[Tensor]
"""Four words of 32 bits, each an int64 tensor with values in [0, 2^32)."""


def philox(counter: Words, key: Sequence[Tensor]) -> Words:
    """Four random words of 32 bits for each counter.

    Args:
        counter: int64 tensors of values in [0, 2^32), of shapes that broadcast together.
        key: two such tensors, which broadcast with them.

    Returns:
        Four int64 tensors of the broadcast shape.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for index in range(_ROUNDS):
        if index:
            k0, k1 = (k0 + _KEY_STEPS[0]) & _MASK, (k1 + _KEY_STEPS[1]) & _MASK
        # int64 products wrap around at 2^64, so their bits are those of the unsigned product. c1 and c3 may carry more
        # than 32 bits from round to round: only what is multiplied has to be clean.
        product0, product2 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1 = _mix(product2, c1, k0), product2
        c2, c3 = _mix(product0, c3, k1), product0
    return c0, c1 & _MASK, c2, c3 & _MASK


def _mix(product: Tensor, word: Tensor, key: Tensor) -> Tensor:
    """The product's high word, xor a word, xor the key."""
    return ((product >> 32) ^ word ^ key) & _MASK


def normal_from_words(words: Words) -> Tensor:
    """Standard normal values from uniform words, by Box and Muller's transformation: four tensors (...) -> (..., 4).

    The logarithm and the angle are computed in float64. Devices differ in the last place of their functions there, and
    after rounding to float32 in about one value of 10^8.
    """
    pairs = [_box_muller(words[0], words[1]), _box_muller(words[2], words[3])]
    return torch.stack([value for pair in pairs for value in pair], -1)


def _box_muller(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Two words -> two standard normal values, float32, of at most 6.7."""
    radius = ((first.double() + 1) * 2.0**-32).log_().mul_(-2).sqrt_()  # of u in (0, 1]
    angle = second.double() * (2 * math.pi * 2.0**-32)
    return (radius * angle.cos()).float(), radius.mul_(angle.sin_()).float()
