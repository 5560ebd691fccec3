"""What the report shows of a run of fields: sentences, tables, maps, spectra and rank histograms."""

from collections.abc import Mapping
from typing import Any

from pipelines.evaluation.fields.evaluate import FILE, describe
from pipelines.evaluation.fields.forecasts import ENSEMBLE, TRUTH
from pipelines.report.documents import NUMBER, Document, read_document
from pipelines.report.fields.maps import field_maps
from pipelines.report.plots import Axis, Chart, Series, line_chart
from pipelines.runs.run_folder import Run

FIELD_EVALUATION = Document(
    format=("sr3-field-evaluation", 1),
    shape={
        **{"stage": str, "split": str, "num_images": int, "num_groups": int, "num_members": int},
        "channels": [{"name": str, "units": str}],
        "methods": {"*": {"*": {"*": {"mean": NUMBER}}}},
        "differences": {"*": {"*": {"*": {"mean": NUMBER}}}},
        "ranks": {"*": [NUMBER]},
        "spectra": {"*": {"*": [NUMBER]}},
        "probabilities": [NUMBER],
        "quantiles": {"*": {"*": [NUMBER]}},
        "provenance": dict,
    },
)
SCORES = {
    "rmse": "RMSE ↓",
    "mae": "MAE ↓",
    "bias": "Bias",
    "crps": "CRPS ↓",
    "spread_skill": "Spread / error",
    "coarsened_rmse": "Input error ↓",
    "energy": "Energy score ↓",
    "angle": "Angle, ° ↓",
}
_STYLES = {TRUTH: "s1", "interpolation": "s2", "regression": "s3", ENSEMBLE: "s4"}


def field_section(run: Run, notes: list[str]) -> dict[str, Any] | None:
    """The section's content; None for a run of images. Without an evaluation it only says so."""
    spec = next((stage.sample for stage in run.stages if stage.sample is not None), None)
    if spec is None:
        return None
    found = read_document(run.path / FILE, FIELD_EVALUATION, notes)
    if found is None:
        return {"evaluation": None, "verdict": ["The run is not evaluated yet."]}
    names = {"channels": found["channels"], "low": [channel.name for channel in spec.low]}
    return {
        "evaluation": found,
        "verdict": list(describe(found)),
        "tables": _tables(found),
        "maps": field_maps(run.path / "samples" / "fields", names),
        "charts": [chart for channel in found["channels"] for chart in _charts(found, channel) if chart is not None],
        "quantiles": _quantiles(found),
    }


def _tables(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A table a channel, and one of the scores of all channels together: columns, and a row a forecast."""
    tables = []
    for channel in [*found["channels"], {"name": "all", "units": ""}]:
        rows = {name: scores[channel["name"]] for name, scores in found["methods"].items()}
        columns = {score: title for score, title in SCORES.items() if any(score in row for row in rows.values())}
        title = "All channels, standardised" if channel["name"] == "all" else channel["name"]
        if columns:
            tables.append({"title": title, "units": channel["units"], "columns": columns, "rows": rows})
    return tables


def _quantiles(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {**channel, "rows": {name: values[channel["name"]] for name, values in found["quantiles"].items()}}
        for channel in found["channels"]
    ]


def _charts(found: Mapping[str, Any], channel: Mapping[str, str]) -> list[Chart | None]:
    name, units = channel["name"], channel["units"] or "1"
    series = [
        Series(name=method, points=[(k + 1.0, power) for k, power in enumerate(spectra[name])], style=_STYLES[method])
        for method, spectra in found["spectra"].items()
        if method in _STYLES
    ]
    power = Axis(label=f"power, ({units})²", scale="log")
    charts = [line_chart(f"{name}: power spectrum", series, Axis(label="wave number", scale="log"), power)]
    if shares := found["ranks"].get(name):
        ranks = [(float(rank), share * len(shares)) for rank, share in enumerate(shares)]
        even = [(0.0, 1.0), (len(shares) - 1.0, 1.0)]
        bars = [
            Series(name="truth among the members", points=ranks, style="s1", dots=True),
            Series(name="right ensemble", points=even, style="s4"),
        ]
        across, up = Axis(label="rank of the truth"), Axis(label="frequency, of an even share")
        charts.append(line_chart(f"{name}: rank histogram", bars, across, up))
    return charts
