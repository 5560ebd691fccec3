"""The report's pictures: what every method made of the held-out images, measured one by one and embedded."""

import base64
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipelines.images.compact_png import encode_compact_png
from pipelines.runs.run_folder import Run
from pipelines.sampling.held_out import is_ablation, repeated

MAX_GALLERY_BYTES = 9_000_000  # beyond it the file would open slowly; the gallery ends early and says so
MAX_EXTREME_BYTES = 1_500_000  # likewise, of each list of worst and best images
MAX_MEASURED = 256  # images that are measured one by one, the first in order
NUM_EXTREMES = 3
MAX_STRIPS = 6
RANKED = {"psnr": ("PSNR", True), "ssim": ("SSIM", True), "consistency": ("consistency", False)}
"""Metric -> its name, and whether more is better."""

log = logging.getLogger(__name__)

Measured = Mapping[str, Mapping[str, Mapping[str, float]]]
"""Key -> method -> metric -> value."""


def note(text: str, notes: list[str]) -> None:
    """Say on the page, and in the log, what is left out."""
    log.warning("report: %s", text)
    notes.append(text)


def title_of(method: str, run: Run) -> str:
    """A method's name for people: its folder in RUN/samples is named by stage."""
    regressions = [stage.name for stage in run.regressions()]
    if method in regressions:
        return "Regression" if len(regressions) == 1 else f"Regression {method.removesuffix('-regression')}"
    return {"low": "Input", "sr3": "SR3", "reference": "Original"}.get(method, method.capitalize())


@dataclass(frozen=True, slots=True)
class Pictures:
    """RUN/samples."""

    folder: Path
    methods: dict[str, str] = field(default_factory=dict)
    """Folder -> title, in the order of the columns."""
    keys: list[str] = field(default_factory=list)
    """Images that every method has, in the order of the evaluation."""
    repeats: tuple[str, ...] = ()
    """Folders of SR3's samples with other noise, of some of the images."""

    @classmethod
    def find(cls, run: Run, keys: Sequence[str], notes: list[str]) -> "Pictures":
        """Look for the pictures of these keys."""
        folder = run.path / "samples"
        trained = run.cascade() if is_ablation(run) else run.regressions()
        names = ["low", "bicubic", *(stage.name for stage in trained), "sr3", "reference"]
        methods = {name: title_of(name, run) for name in names if (folder / name).is_dir()}
        files = {key: [folder / name / f"{key}.png" for name in methods] for key in keys}
        whole = [key for key in keys if methods and all(file.is_file() for file in files[key])]
        if methods and len(whole) < len(keys):
            note(f"{len(keys) - len(whole)} of {len(keys)} images lack a sample and are left out", notes)
        count = len([path for path in folder.glob("sr3-*") if path.is_dir()])
        return cls(folder, methods, whole, tuple(repeated(k) for k in range(1, count + 1)))

    def has(self, title: str) -> bool:
        """Whether there are pictures of that method."""
        return title in self.methods.values()

    def measure(self, notes: list[str]) -> dict[str, dict[str, dict[str, float]]]:
        """PSNR, SSIM and consistency of each method on each of the first images."""
        import torch  # takes seconds

        from sr3core.metrics.consistency import consistency
        from sr3core.metrics.psnr import psnr
        from sr3core.metrics.ssim import ssim

        found: dict[str, dict[str, dict[str, float]]] = {}
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # threads that wait for one another took 12 times as long on a busy machine
        for key in self.keys[:MAX_MEASURED] if self.has("Input") and self.has("Original") else ():
            try:
                images = {title: self._pixels(name, key)[None] for name, title in self.methods.items()}
            except OSError as error:
                note(f"an image of {key} is damaged: {error}", notes)
                self.keys.remove(key)
                continue
            low, high = images.pop("Input"), images.pop("Original")
            outputs = np.concatenate(list(images.values()))
            highs, lows = high.repeat(len(outputs), 0), low.repeat(len(outputs), 0)
            values = zip(psnr(outputs, highs), ssim(outputs, highs), consistency(outputs, lows), strict=True)
            found[key] = {
                title: dict(zip(RANKED, map(float, row), strict=True))
                for title, row in zip(images, values, strict=True)
            }
        torch.set_num_threads(threads)
        return found

    def rows(
        self, keys: Sequence[str], measured: Measured, metric: str = "psnr", limit: int | None = None
    ) -> list[dict[str, Any]]:
        """Embedded pictures of these keys, each with its metric, until they are more bytes than `limit`, by default
        MAX_GALLERY_BYTES."""
        rows, total = [], 0
        for key in keys:
            contents = {name: (self.folder / name / f"{key}.png").read_bytes() for name in self.methods}
            total += sum(map(len, contents.values()))
            if rows and total > (limit or MAX_GALLERY_BYTES):
                break
            cells = [
                {
                    "title": title,
                    "src": _address(contents[name]),
                    "size": self._size(name, key),
                    "value": measured.get(key, {}).get(title, {}).get(metric),
                }
                for name, title in self.methods.items()
            ]
            row, column, share = self._patch(key)
            centre = [100 * start / max(1e-9, 1 - share) for start in (column, row)]
            rows.append({"key": key, "number": self.keys.index(key) + 1, "cells": cells, "patch": centre})
        return rows

    def patches(self, keys: Sequence[str]) -> list[dict[str, Any]]:
        """Each key's pictures with a square marked, and what is in the square, as Figures 3-5 show it."""
        found = []
        for key in keys:
            row, column, share = self._patch(key)
            cells = []
            for name, title in self.methods.items():
                pixels = self._pixels(name, key)
                top, left, side = (round(part * len(pixels)) for part in (row, column, share))
                side = max(side, 1)
                cut = pixels[top : top + side, left : left + side]
                cells.append(
                    {
                        "title": title,
                        "src": _address(encode_compact_png(pixels)),
                        "patch": _address(encode_compact_png(cut)),
                    }
                )
            found.append(
                {
                    "number": self.keys.index(key) + 1,
                    "cells": cells,
                    "frame": [100 * column, 100 * row, 100 * share],
                }
            )
        return found

    def extremes(self, measured: Measured) -> list[dict[str, Any]]:
        """SR3's worst and best images by each metric: failures, and what it does well."""
        found = []
        for metric, (title, more_is_better) in RANKED.items() if self.has("SR3") else ():
            ranked = sorted(measured, key=lambda key: measured[key]["SR3"][metric], reverse=not more_is_better)
            best = ranked[: -NUM_EXTREMES - 1 : -1] if len(ranked) >= 2 * NUM_EXTREMES else []
            if ranked:
                worst = self.rows(ranked[:NUM_EXTREMES], measured, metric, MAX_EXTREME_BYTES)
                chosen = self.rows(best, measured, metric, MAX_EXTREME_BYTES)
                found.append({"metric": metric, "title": title, "worst": worst, "best": chosen})
        return found

    def strips(self) -> list[dict[str, Any]]:
        """Several samples of one input side by side, and where they differ: black nowhere, white by 32 grey levels."""
        found = []
        for key in self.keys[:MAX_STRIPS]:
            names = ["sr3", *self.repeats]
            if not all((self.folder / name / f"{key}.png").is_file() for name in names):
                break
            samples = [self._pixels(name, key) for name in names]
            spread = np.stack(samples).astype(float).std(axis=0, ddof=1).mean(axis=2) if len(samples) > 1 else None
            if spread is None:
                break
            shown = {"Input": self._pixels("low", key)} if self.has("Input") else {}
            shown |= {f"Sample {number}": pixels for number, pixels in enumerate(samples, 1)}
            shown["Where they differ"] = np.clip(spread * (255 / 32), 0, 255).astype(np.uint8)
            shown |= {"Original": self._pixels("reference", key)} if self.has("Original") else {}
            cells = [
                {
                    "title": title,
                    "src": _address(encode_compact_png(pixels)),
                    "size": (pixels.shape[1], pixels.shape[0]),
                    "value": None,
                }
                for title, pixels in shown.items()
            ]
            number = self.keys.index(key) + 1
            found.append({"key": key, "number": number, "cells": cells, "patch": (50.0, 50.0), "spread": spread.mean()})
        return found

    def _size(self, method: str, key: str) -> tuple[int, int]:
        with Image.open(self.folder / method / f"{key}.png") as image:
            return image.size

    def _pixels(self, method: str, key: str) -> np.ndarray:
        with Image.open(self.folder / method / f"{key}.png") as image:
            return np.asarray(image.convert("RGB"))

    def _patch(self, key: str) -> tuple[float, float, float]:
        """The quarter in which the original has most that bicubic lacks: top, left and side as shares."""
        if not self.has("Original"):
            return 0.375, 0.375, 0.25
        detail = self._pixels("reference", key).astype(float)
        detail -= self._pixels("bicubic", key) if self.has("Bicubic") else detail.mean(axis=(0, 1))
        energy = np.square(detail).mean(axis=2)
        height, width = energy.shape
        side = max(1, min(height, width) // 4)
        step = max(1, side // 4)
        windows = np.lib.stride_tricks.sliding_window_view(energy, (side, side))[::step, ::step].mean(axis=(2, 3))
        row, column = np.unravel_index(int(windows.argmax()), windows.shape)
        return float(row) * step / height, float(column) * step / width, side / min(height, width)


def _address(content: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"
