"""How sharp a picture is, and how blocky: what an enlarged or strongly compressed photo gives away."""

import numpy as np

BLOCK = 8
"""Side of JPEG's blocks, pixels."""
MIN_DETAIL = -8.0
"""Fine detail, in dB, below which a picture was probably enlarged, or is out of focus."""
MAX_BLOCK_STEP = 1.2
"""Steps at the borders of blocks above which JPEG's blocks are visible."""

_LUMA = np.array([77, 150, 29]) / 256
_COARSE, _FINE = (0.06, 0.16), (0.3, 0.5)  # cycles a pixel
_PHOTO = -15.0
"""dB of fine against coarse detail in photos of a megapixel, at their own resolution."""


def fine_detail(image: np.ndarray) -> float | None:
    """Power of fine detail against that of coarse detail, in dB more than in photos of a megapixel.

    Enlarging a photo twice costs about 12 dB. None for a picture that has no coarse detail, or is below 32 pixels.

    Args:
        image: uint8 RGB (H, W, 3).
    """
    if min(image.shape[:2]) < 32:
        return None
    luma = image @ _LUMA  # (H, W, 3) -> (H, W)
    window = np.outer(*(np.hanning(side + 2)[1:-1] for side in luma.shape))
    power = np.abs(np.fft.rfft2((luma - luma.mean()) * window)) ** 2
    frequency = np.hypot(np.fft.fftfreq(luma.shape[0])[:, None], np.fft.rfftfreq(luma.shape[1]))
    coarse, fine = (power[(frequency >= low) & (frequency < high)].mean() for low, high in (_COARSE, _FINE))
    noise = power.size  # of rounding to whole levels, about
    return None if coarse < noise else float(10 * np.log10(max(fine, 1e-9) / coarse)) - _PHOTO


def block_step(image: np.ndarray) -> float:
    """Mean step between neighbours at the borders of blocks of 8 x 8 over the mean step elsewhere; 1 without blocks.

    Args:
        image: uint8 RGB (H, W, 3), of any offset of its blocks.
    """
    luma = image @ _LUMA
    return max(_block_step(luma), _block_step(luma.T))


def _block_step(luma: np.ndarray) -> float:
    """Along one axis: the largest over the offsets that the blocks may have."""
    steps = np.abs(np.diff(luma, axis=0)).mean(axis=1)  # (H, W) -> (H - 1,)
    sums = np.array([steps[offset::BLOCK].sum() for offset in range(BLOCK)])
    counts = np.array([len(steps[offset::BLOCK]) for offset in range(BLOCK)])
    others = (steps.sum() - sums) / np.maximum(len(steps) - counts, 1)
    ratios = sums / np.maximum(counts, 1) / np.maximum(others, 1e-9)
    return float(ratios.max()) if steps.sum() else 1.0
