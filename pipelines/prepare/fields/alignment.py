"""Whether a low-resolution grid covers the same cells as a high-resolution one: by coordinates, and by the values."""

from fractions import Fraction

import numpy as np

from pipelines.stores.store import Variable
from sr3core.errors import DataError
from sr3core.images.resize import area_weights

LARGEST_OFFSET = 0.01
"""Largest distance of the grids' centres, in low-resolution cells."""


def scale_of(high: Variable, low: Variable) -> Fraction:
    """Ratio of two grids, the same for rows and columns.

    Raises:
        DataError: it is not.
    """
    rows, columns = (Fraction(large, small) for large, small in zip(high.size, low.size, strict=True))
    if rows != columns or rows < 1:
        raise DataError(
            f"{high.name} is on a grid of {_size(high)} and {low.name} on one of {_size(low)}: no one scale for rows"
            " and columns leads from one to the other; cut or regrid one of them, for example with `cdo remapcon`"
        )
    return rows


def rows_are_reversed(high: Variable, low: Variable) -> bool:
    """Whether the rows of the low-resolution grid run the other way, as latitudes often do."""
    if high.rows is None or low.rows is None or len(low.rows) < 2:
        return False
    return bool((high.rows[-1] > high.rows[0]) != (low.rows[-1] > low.rows[0]))


def check_aligned(high: Variable, low: Variable, scale: Fraction) -> None:
    """Check by coordinates that low-resolution cells lie where they must; grids without coordinates pass.

    Raises:
        DataError: they do not; gives the offset in cells.
    """
    axes = (("rows", high.rows, low.rows), ("columns", high.columns, low.columns))
    for axis, fine, coarse in axes:
        if fine is None or coarse is None:
            continue
        coarse = coarse[::-1] if axis == "rows" and rows_are_reversed(high, low) else coarse
        centres = np.interp((np.arange(len(coarse)) + 0.5) * float(scale) - 0.5, np.arange(len(fine)), fine)
        cell = abs(coarse[-1] - coarse[0]) / max(len(coarse) - 1, 1) or 1.0
        distances = coarse - centres
        if axis == "columns":
            distances = (distances + 180) % 360 - 180 if np.ptp(fine) <= 360 else distances
        worst = distances[np.abs(distances).argmax()] / cell
        if abs(worst) > LARGEST_OFFSET:
            raise DataError(
                f"the {axis} of {low.name} lie {worst:+.2f} low-resolution cells away from where those of {high.name},"
                f" coarsened {scale} times, lie: the grids do not cover the same cells. Cut or regrid one of them, for"
                " example with `cdo remapcon`"
            )


def check_not_shifted(name: str, high: np.ndarray, low: np.ndarray) -> None:
    """Check by the values of some samples that the input is not a cell away from the target, or upside down.

    Args:
        name: of the variable.
        high: (N, H, W).
        low: (N, h, w) of the same variable; both without NaN.

    Raises:
        DataError: the target's means fit the input better if it is moved, or turned upside down.
    """
    rows, columns = (area_weights(large, small) for large, small in zip(high.shape[1:], low.shape[1:], strict=True))
    means = rows @ high.astype(np.float64) @ columns.T  # (N, H, W) -> (N, h, w)
    if min(means.shape[1:]) < 4:
        return
    errors = {(r, c): _error(means, low, r, c) for r in (-1, 0, 1) for c in (-1, 0, 1)}
    best = min(errors, key=lambda shift: errors[shift])
    if best != (0, 0) and errors[best] < 0.5 * errors[0, 0]:
        raise DataError(
            f"{name}: the low-resolution input fits the means of the target best when it is moved by {best[0]} rows and"
            f" {best[1]} columns of its cells: one of the two is shifted; regrid it, for example with `cdo remapcon`"
        )
    if _error(means, low[:, ::-1], 0, 0) < 0.25 * errors[0, 0]:
        raise DataError(f"{name}: the low-resolution input fits the target best upside down; reverse its rows")


def _error(means: np.ndarray, low: np.ndarray, row: int, column: int) -> float:
    """Mean squared difference inside, with the input moved."""
    height, width = means.shape[1:]
    moved = low[:, 1 + row : height - 1 + row, 1 + column : width - 1 + column].astype(np.float64)
    difference = means[:, 1:-1, 1:-1] - moved
    return float(np.square(difference - difference.mean()).mean())


def _size(variable: Variable) -> str:
    return f"{variable.size[0]}x{variable.size[1]}"
