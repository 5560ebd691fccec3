"""Draw cluster/monitoring/dashboard.json as Grafana would lay it out, from what a Prometheus has recorded.

    python .ci/draw_dashboard.py http://127.0.0.1:9090 FROM TO dashboard.png      # seconds since 1970

Panels, places, queries, legends and units are the file's; `$run` takes every run.
"""

import json
import re
import sys
import urllib.parse
import urllib.request
from datetime import datetime
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure

DASHBOARD = Path(__file__).resolve().parents[1] / "cluster" / "monitoring" / "dashboard.json"
COLUMNS = 24
"""Of Grafana's grid."""
POINTS = 300
UNITS = {"percentunit": (100, "%"), "bytes": (2**-20, "MiB"), "s": (1, "s"), "none": (1, "")}
"""Grafana's name of a unit: what a value is multiplied by, and the axis' label."""


def main(prometheus: str, first: float, last: float, out: Path) -> None:
    """Draw every panel at its place."""
    panels = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
    figure = Figure(figsize=(15, rows * 0.36), layout="constrained", facecolor="white")
    grid = figure.add_gridspec(rows, COLUMNS)
    for panel in panels:
        place = panel["gridPos"]
        axes = figure.add_subplot(grid[place["y"] : place["y"] + place["h"], place["x"] : place["x"] + place["w"]])
        draw(axes, panel, prometheus, first, last)
    figure.savefig(out, dpi=80)


def draw(axes: Axes, panel: dict[str, Any], prometheus: str, first: float, last: float) -> None:
    """One panel: a line for each series of each of its queries."""
    factor, unit = UNITS[panel["fieldConfig"]["defaults"].get("unit", "none")]
    for target in panel["targets"]:
        for series in query_range(prometheus, target["expr"].replace("$run", ".*"), first, last):
            times = [datetime.fromtimestamp(time) for time, _ in series["values"]]
            values = [factor * float(value) for _, value in series["values"]]
            axes.plot(times, values, label=legend(target["legendFormat"], series["metric"]))  # type: ignore[arg-type]
    axes.set_title(panel["title"], loc="left", fontsize=10)
    axes.set_ylabel(unit)
    axes.set_ylim(bottom=0)
    axes.set_xlim(datetime.fromtimestamp(first), datetime.fromtimestamp(last))  # type: ignore[arg-type]
    axes.grid(alpha=0.3)
    locator = AutoDateLocator(maxticks=5)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator, show_offset=False))
    if axes.lines:
        axes.legend(fontsize=7, loc="best")
    else:
        axes.text(0.5, 0.5, "no data", ha="center", va="center", transform=axes.transAxes, color="grey")


def legend(text: str, labels: dict[str, str]) -> str:
    """A legend with its `{{label}}`s filled in."""
    return re.sub(r"{{(\w+)}}", lambda name: labels.get(name[1], ""), text)


def query_range(prometheus: str, expression: str, first: float, last: float) -> list[dict[str, Any]]:
    """The series of a query between two times."""
    asked = urllib.parse.urlencode(
        {"query": expression, "start": first, "end": last, "step": max(1, (last - first) / POINTS)}
    )
    with urllib.request.urlopen(f"{prometheus}/api/v1/query_range?{asked}", timeout=60) as answer:
        return json.load(answer)["data"]["result"]


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), float(sys.argv[3]), Path(sys.argv[4]))
