"""Sizes of images: the side of a square, or (height, width); in text "64", or "64x96", the height first."""

from fractions import Fraction

Size = int | tuple[int, int]
"""The side of a square, or (height, width), in pixels. A square has the first form alone (is_plain)."""


def sides_of(size: Size) -> tuple[int, int]:
    """(height, width)."""
    return (size, size) if isinstance(size, int) else size


def size_of(height: int, width: int) -> Size:
    """The one form of a size."""
    return height if height == width else (height, width)


def num_pixels(size: Size | None) -> int:
    """Height times width; 0 for None, which stands for no image."""
    height, width = sides_of(size or 0)
    return height * width


def describe(size: Size | None) -> str:
    """The size as stages are named by it: "64", "64x96"; "base" for no image."""
    return "base" if size is None else str(size) if isinstance(size, int) else f"{size[0]}x{size[1]}"


def rows_by_columns(size: Size) -> str:
    """Both sides, also of a square: "64x64"."""
    height, width = sides_of(size)
    return f"{height}x{width}"


def fits_in(size: Size, other: Size) -> bool:
    """Whether no side is larger than the other's."""
    return all(mine <= theirs for mine, theirs in zip(sides_of(size), sides_of(other), strict=True))


def ratio(high: Size, low: Size) -> Fraction | None:
    """How many times larger `high` is; None if its sides are not in one ratio to those of `low`."""
    across, down = (Fraction(large, small) for large, small in zip(sides_of(high), sides_of(low), strict=True))
    return across if across == down else None


def is_plain(size: Size) -> bool:
    """Whether the size has its one form: a square is a number, never a pair, so that it has one fingerprint."""
    return isinstance(size, int) or size[0] != size[1]
