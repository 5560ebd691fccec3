"""Maps of held-out fields in perceptually uniform colours: one range for values, one for differences, with units."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.images.compact_png import encode_compact_png
from pipelines.report.gallery import data_uri

NUM_SAMPLES = 2
MAX_CHANNELS = 8
_SHORTEST = 256
"""Side in pixels that maps are enlarged to at least, cell by cell, so that browsers do not blur them."""
_VALUES = {
    "input": "Input",
    "interpolation": "Interpolation",
    "regression": "Regression",
    "mean": "Ensemble mean",
    "member-0": "Member 1",
    "member-1": "Member 2",
    "truth": "Truth",
}


def field_maps(folder: Path, spec: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows of maps of the first samples that `sr3 evaluate` kept, a row a channel.

    Args:
        folder: RUN/samples/fields.
        spec: channels, each with name and units, and low: names of the input's channels.

    Returns:
        title, units, cells (title, src, size) and bars (label, src, low, high) of each row.
    """
    rows: list[dict[str, Any]] = []
    for number, path in enumerate(sorted(folder.glob("*.npz"))[:NUM_SAMPLES], 1):
        with np.load(path, allow_pickle=False) as stored:
            shown = {n.removeprefix("shown/"): stored[n] for n in stored.files if n.startswith("shown/")}
        if shown:
            channels = list(enumerate(spec["channels"]))[:MAX_CHANNELS]
            rows += [_row(number, index, channel, shown, spec["low"]) for index, channel in channels]
    return rows


def _row(
    number: int, index: int, channel: Mapping[str, str], shown: Mapping[str, np.ndarray], low: list[str]
) -> dict[str, Any]:
    planes = {name: values[index] for name, values in shown.items() if name not in ("input", "valid")}
    if channel["name"] in low:
        planes["input"] = shown["input"][low.index(channel["name"])]
    valid = shown["valid"][index] if "valid" in shown else np.ones(planes["truth"].shape, bool)
    lowest, highest = (float(x) for x in np.percentile(planes["truth"][valid], [2, 98]))
    cells = [
        _cell(title, planes[name], lowest, highest, "viridis", valid)
        for name, title in _VALUES.items()
        if name in planes
    ]
    bars = [_bar("values", "viridis", lowest, highest)]
    for title, plane, colours, signed in _differences(planes):
        reach = float(np.percentile(np.abs(plane[valid]), 98)) or 1.0
        start = -reach if signed else 0.0
        cells.append(_cell(title, plane, start, reach, colours, valid))
        bars.append(_bar(title.lower(), colours, start, reach))
    title = f"Sample {number}: {channel['name']}"
    return {"title": title, "units": channel["units"], "cells": cells, "bars": bars}


def _differences(planes: Mapping[str, np.ndarray]) -> Iterator[tuple[str, np.ndarray, str, bool]]:
    """Title, map, colours, and whether the colours are even around 0."""
    if "mean" in planes:
        yield "Spread", planes["spread"], "magma", False
        yield "Mean − truth", planes["mean"] - planes["truth"], "RdBu_r", True


def _cell(
    title: str, plane: np.ndarray, lowest: float, highest: float, colours: str, valid: np.ndarray
) -> dict[str, Any]:
    pixels = coloured(plane, lowest, highest, colours)
    if plane.shape == valid.shape:
        pixels[~valid] = 128
    factor = -(-_SHORTEST // min(plane.shape))
    large = pixels.repeat(factor, 0).repeat(factor, 1)
    return {"title": title, "src": data_uri(encode_compact_png(large)), "size": plane.shape[::-1]}


def _bar(label: str, colours: str, lowest: float, highest: float) -> dict[str, Any]:
    ramp = coloured(np.linspace(lowest, highest, 128)[None], lowest, highest, colours)
    src = data_uri(encode_compact_png(ramp.repeat(8, 0)))
    return {"label": label, "src": src, "low": f"{lowest:.4g}", "high": f"{highest:.4g}"}


def coloured(plane: np.ndarray, lowest: float, highest: float, colours: str) -> np.ndarray:
    """Values, (H, W), in a colour map between two ends, uint8 (H, W, 3); what is not finite is grey."""
    import matplotlib

    scaled = np.clip((plane.astype(np.float64) - lowest) / max(highest - lowest, 1e-12), 0, 1)
    pixels = np.round(matplotlib.colormaps[colours](np.nan_to_num(scaled))[..., :3] * 255).astype(np.uint8)
    pixels[~np.isfinite(plane)] = 128
    return pixels
