"""Charts as svg and png."""

import io
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw(plot: "Callable[[Axes], None]") -> dict[str, bytes]:
    """A chart by its format: svg and png."""
    from matplotlib.figure import Figure  # not pyplot: no global state, no display

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    plot(axes)
    axes.spines[["top", "right"]].set_visible(False)
    files = {"svg": io.BytesIO(), "png": io.BytesIO()}
    for suffix, file in files.items():
        figure.savefig(file, format=suffix, dpi=130, metadata={"Date": None} if suffix == "svg" else None)
    return {suffix: file.getvalue() for suffix, file in files.items()}
