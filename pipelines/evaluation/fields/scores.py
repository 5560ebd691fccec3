"""Scores of forecasts of fields, per channel and in physical units, with intervals over groups of samples."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipelines.evaluation.fields.forecasts import ENSEMBLE, TRUTH, bin_edges
from sr3core.metrics.bootstrap import LEVEL, resamples
from sr3core.samples.spec import SampleSpec

NUM_RESAMPLES = 1000
FEWEST_GROUPS = 5
"""With fewer groups there is no interval: their resamples say nothing about others."""
PROBABILITIES = (0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999)

Terms = Mapping[str, np.ndarray]
Numbers = dict[str, float]


class Scores:
    """Computes scores from the terms of all samples.

    Args:
        terms: forecast -> term -> one row a sample.
        groups: the group of each sample, such as its block of time: these are resampled, as wholes.
        spec: the channels.
    """

    def __init__(self, terms: Mapping[str, Terms], groups: Sequence[str], spec: SampleSpec) -> None:
        self._spec = spec
        names, of_sample = np.unique(np.array(groups), return_inverse=True)
        self.num_groups = len(names)
        drawn = [np.ones(len(names)), *self._draws(len(names))]
        self._weights = np.stack(drawn)[:, of_sample]  # (R + 1, n), the whole set first
        self._terms = terms
        self._series = {name: self._all(found) for name, found in terms.items() if name != TRUTH}

    def _draws(self, count: int) -> list[np.ndarray]:
        if count < FEWEST_GROUPS:
            return []
        return [np.bincount(chosen, minlength=count).astype(float) for chosen in resamples(count, NUM_RESAMPLES, 0)]

    def _sums(self, term: np.ndarray) -> np.ndarray:
        """Sums over the samples of each resample: (n, ...) -> (R + 1, ...)."""
        return np.tensordot(self._weights, term.astype(np.float64), 1)

    def _all(self, terms: Terms) -> dict[str, np.ndarray]:
        """Every score of a forecast, of all samples and of each resample, (R + 1, C), or (R + 1, 1) of all channels."""
        sums = {
            name: self._sums(term) for name, term in terms.items() if name not in ("histogram", "spectrum", "ranks")
        }
        count, samples = sums["count"], self._weights.sum(1)[:, None]
        found = {
            "rmse": np.sqrt(sums["squared"] / count),
            "mae": sums["absolute"] / count,
            "bias": sums["error"] / count,
            "crps": sums["crps"] / count,
            "energy": sums["energy"] / samples,
        }
        if "variance" in sums:
            members = terms["ranks"].shape[-1] - 1
            spread = (members + 1) / members * sums["variance"]
            found["spread_skill"] = np.sqrt(spread / np.maximum(sums["squared"], 1e-300))
        if "angle" in sums:
            found["angle"] = sums["angle"] / samples
        if "coarsened" in sums:
            found["coarsened_rmse"] = np.sqrt(sums["coarsened"] / samples)
        return found

    def methods(self) -> dict[str, dict[str, dict[str, Numbers]]]:
        """Forecast -> channel -> score -> value with its interval; scores of all channels are under "all"."""
        return {name: self._by_channel(series) for name, series in self._series.items()}

    def _by_channel(self, series: Mapping[str, np.ndarray]) -> dict[str, dict[str, Numbers]]:
        found: dict[str, dict[str, Numbers]] = {channel.name: {} for channel in self._spec.high} | {"all": {}}
        for score, values in series.items():
            alone = score in ("energy", "angle")
            for number, channel in enumerate(["all"] if alone else [channel.name for channel in self._spec.high]):
                if not math.isnan(values[0, number]):
                    found[channel][score] = _with_interval(values[:, number])
        return found

    def differences(self) -> dict[str, dict[str, dict[str, Numbers]]]:
        """Other forecast -> channel -> score -> its value minus the ensemble's on the same samples."""
        ours = self._series.get(ENSEMBLE)
        if ours is None:
            return {}
        wanted = ("rmse", "mae", "crps", "energy", "angle")
        gaps = {
            name: {score: theirs[score] - ours[score] for score in wanted if score in theirs}
            for name, theirs in self._series.items()
            if name != ENSEMBLE
        }
        return {name: self._by_channel(series) for name, series in gaps.items()}

    def ranks(self) -> dict[str, list[float]]:
        """Channel -> share of values at which the truth has each rank among the members; empty without an ensemble."""
        if ENSEMBLE not in self._terms or "ranks" not in self._terms[ENSEMBLE]:
            return {}
        sums = self._terms[ENSEMBLE]["ranks"].sum(0)
        return {c.name: (row / row.sum()).tolist() for c, row in zip(self._spec.high, sums, strict=True)}

    def spectra(self) -> dict[str, dict[str, list[float]]]:
        """Forecast -> channel -> mean power in each ring of wave numbers, the largest wavelength first."""
        return {
            name: {c.name: row.tolist() for c, row in zip(self._spec.high, found["spectrum"].mean(0), strict=True)}
            for name, found in self._terms.items()
        }

    def quantiles(self) -> dict[str, dict[str, list[float]]]:
        """Forecast -> channel -> the value at each of PROBABILITIES, of all members' values together."""
        edges = bin_edges(self._spec)
        found: dict[str, dict[str, list[float]]] = {}
        for name, terms in self._terms.items():
            counts = terms["histogram"].sum(0, dtype=np.float64)
            rows = zip(self._spec.high, counts, edges, strict=True)
            found[name] = {channel.name: _quantiles(row, edge) for channel, row, edge in rows}
        return found


def _with_interval(values: np.ndarray) -> Numbers:
    """The first value, and the interval of the others."""
    if len(values) == 1:
        return {"mean": float(values[0])}
    low, high = np.quantile(values[1:], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return {"mean": float(values[0]), "low": float(low), "high": float(high)}


def _quantiles(counts: np.ndarray, edges: np.ndarray) -> list[float]:
    shares = np.concatenate([[0.0], np.cumsum(counts) / counts.sum()])
    return np.interp(PROBABILITIES, shares, edges).tolist()


def tabulate(evaluation: dict[str, Any]) -> list[str]:
    """A table a channel, and one of the scores of all channels together."""
    from pipelines.runtime.text_table import text_table

    lines: list[str] = []
    for channel in [*evaluation["channels"], {"name": "all", "units": ""}]:
        rows = {name: scores[channel["name"]] for name, scores in evaluation["methods"].items()}
        columns = list(dict.fromkeys(score for row in rows.values() for score in row))
        if columns:
            units = f" [{channel['units']}]" if channel["units"] else ""
            head = ["all channels" if channel["name"] == "all" else f"{channel['name']}{units}", *columns]
            lines += text_table([head, *([name, *(_cell(row.get(c)) for c in columns)] for name, row in rows.items())])
            lines.append("")
    return lines[:-1]


def _cell(numbers: Numbers | None) -> str:
    if numbers is None:
        return ""
    interval = f" [{numbers['low']:.3g}, {numbers['high']:.3g}]" if "low" in numbers else ""
    return f"{numbers['mean']:.4g}{interval}"
