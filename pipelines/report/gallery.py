"""Embedding the report's pictures in the page: galleries, enlarged patches, extremes, strips of samples."""

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np

from pipelines.images.compact_png import encode_compact_png
from pipelines.report.picture_metrics import RANKED, Measured, most_detailed_window
from pipelines.report.pictures import Pictures

MAX_GALLERY_BYTES = 9_000_000
"""A larger file would open slowly, so the gallery ends there, with a note."""
MAX_EXTREME_BYTES = 4_500_000
"""The same limit for the worst images, and for the best."""
NUM_EXTREMES = 3
"""Worst and best images of each metric."""
RANKS = ("", "second ", "third ")
MAX_STRIPS = 6
WHITE_DEVIATION = 32
"""Standard deviation, in grey levels, that strips show as white."""


def gallery_rows(
    pictures: Pictures, keys: Sequence[str], measured: Measured, limit: int | None = None
) -> list[dict[str, Any]]:
    """Embed the pictures of some images, each with its PSNR.

    Args:
        pictures: where the pictures are.
        keys: which images, in order; the first is always included.
        measured: the metrics; missing ones are None.
        limit: size in bytes beyond which no image is added; MAX_GALLERY_BYTES by default.
    """
    rows, total = [], 0
    for key in keys:
        contents = {name: pictures.file(name, key).read_bytes() for name in pictures.methods}
        total += sum(map(len, contents.values()))
        if rows and total > (limit or MAX_GALLERY_BYTES):
            break
        cells = [
            {
                "title": title,
                "src": data_uri(contents[name]),
                "size": pictures.size(name, key),
                "value": measured.get(key, {}).get(title, {}).get("psnr"),
            }
            for name, title in pictures.methods.items()
        ]
        centre = most_detailed_window(pictures, key).centre
        rows.append({"key": key, "number": pictures.number(key), "cells": cells, "patch": centre})
    return rows


def patches(pictures: Pictures, keys: Sequence[str]) -> list[dict[str, Any]]:
    """Each image's pictures with a square marked, and the content of the square, as in Figures 3-5."""
    found = []
    for key in keys:
        window, cells = most_detailed_window(pictures, key), []
        for name, title in pictures.methods.items():
            pixels = pictures.read(name, key)
            cut = _png_uri(window.cut(pixels))
            cells.append({"title": title, "src": _png_uri(pixels), "patch": cut})
        frame = [100 * window.left, 100 * window.top, 100 * window.side]
        found.append({"number": pictures.number(key), "cells": cells, "frame": frame})
    return found


def extremes(pictures: Pictures, measured: Measured) -> dict[str, list[dict[str, Any]]]:
    """SR3's failures and successes: "worst" and "best", every image once, with the metrics by which it is one.

    Both are empty if there are fewer than two images: one alone is neither.
    """
    if not pictures.has("SR3") or len(measured) < 2:
        return {"worst": [], "best": []}
    count = min(NUM_EXTREMES, len(measured) // 2)
    known = [(name, words) for name, words in RANKED.items() if name in next(iter(measured.values()))["SR3"]]
    found = {}
    for side in ("worst", "best"):
        places = sorted(
            (rank, index, key, f"{RANKS[rank]}{side} by {title}")
            for index, (metric, (title, more_is_better)) in enumerate(known)
            for rank, key in enumerate(_ranked(measured, metric, more_is_better == (side == "best"))[:count])
        )
        reasons: dict[str, list[str]] = {}
        for _, _, key, reason in places:
            reasons.setdefault(key, []).append(reason)
        rows = gallery_rows(pictures, list(reasons), measured, MAX_EXTREME_BYTES)
        found[side] = [row | {"why": ", ".join(reasons[row["key"]])} for row in rows]
    return found


def _ranked(measured: Measured, metric: str, highest_first: bool) -> list[str]:
    return sorted(measured, key=lambda key: measured[key]["SR3"][metric], reverse=highest_first)


def strips(pictures: Pictures) -> list[dict[str, Any]]:
    """Several samples of one input, and where they differ: black is no deviation, white is WHITE_DEVIATION."""
    found = []
    names = ["sr3", *pictures.repeats]
    for key in pictures.keys[:MAX_STRIPS] if len(names) > 1 else ():
        if not all(pictures.file(name, key).is_file() for name in names):
            break
        samples = [pictures.read(name, key) for name in names]
        spread = np.stack(samples).astype(float).std(axis=0, ddof=1).mean(axis=2)
        shown = {"Input": pictures.read("low", key)} if pictures.has("Input") else {}
        shown |= {f"Sample {number}": pixels for number, pixels in enumerate(samples, 1)}
        shown["Where they differ"] = np.clip(spread * (255 / WHITE_DEVIATION), 0, 255).astype(np.uint8)
        shown |= {"Original": pictures.read("reference", key)} if pictures.has("Original") else {}
        found.append(
            {
                "key": key,
                "number": pictures.number(key),
                "cells": [_strip_cell(title, pixels) for title, pixels in shown.items()],
                "patch": (50.0, 50.0),
                "spread": spread.mean(),
            }
        )
    return found


def _strip_cell(title: str, pixels: np.ndarray) -> dict[str, Any]:
    return {
        "title": title,
        "src": _png_uri(pixels),
        "size": (pixels.shape[1], pixels.shape[0]),
        "value": None,
    }


def _png_uri(pixels: np.ndarray) -> str:
    return data_uri(encode_compact_png(pixels))


def data_uri(content: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"
