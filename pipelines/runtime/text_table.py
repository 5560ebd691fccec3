"""Tables of plain text for terminals and logs."""

from collections.abc import Sequence


def text_table(rows: Sequence[Sequence[str]], right: bool = False) -> list[str]:
    """Rows as lines of aligned columns, two spaces apart; a column is as wide as its widest cell.

    Args:
        rows: cells; the first row may hold headings.
        right: align all columns but the first on the right, as numbers are.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        aligned = [cell.rjust(w) if right else cell.ljust(w) for cell, w in zip(others, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *aligned]).rstrip())
    return lines
