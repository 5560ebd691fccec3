"""Measuring the report's pictures one by one, and finding the most detailed part of a picture."""

from collections.abc import Container, Mapping
from dataclasses import dataclass

import numpy as np

from pipelines.report.pictures import Pictures, note

MAX_MEASURED = 256
"""Number of images that are measured individually: the first ones in order."""
RANKED = {"psnr": ("PSNR", True), "ssim": ("SSIM", True), "consistency": ("consistency", False)}
"""Metric -> its name, and whether higher is better."""

Measured = Mapping[str, Mapping[str, Mapping[str, float]]]
"""Key -> method's title -> metric -> value."""


def measure_pictures(
    pictures: Pictures, notes: list[str], metrics: Container[str] = RANKED
) -> dict[str, dict[str, dict[str, float]]]:
    """PSNR, SSIM and consistency, as far as they are among the metrics, of each method on each of the first images.

    An image with a damaged picture is removed from pictures.keys, with a note.
    """
    import torch  # takes seconds

    found: dict[str, dict[str, dict[str, float]]] = {}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # on a busy machine, threads waiting for each other took 12 times as long
    for key in pictures.keys[:MAX_MEASURED] if pictures.has("Input") and pictures.has("Original") else ():
        try:
            images = {title: pictures.read(name, key)[None] for name, title in pictures.methods.items()}
        except OSError as error:
            note(f"an image of {key} is damaged: {error}", notes)
            pictures.keys.remove(key)
            continue
        values = _measure(images)
        found[key] = {t: {name: v for name, v in row.items() if name in metrics} for t, row in values.items()}
    torch.set_num_threads(threads)
    return found


def _measure(images: dict[str, np.ndarray]) -> dict[str, dict[str, float]]:
    """Title -> metric -> value, from title -> one image, (1, H, W, 3); removes input and original from the images."""
    from sr3core.metrics.consistency import consistency
    from sr3core.metrics.psnr import psnr
    from sr3core.metrics.ssim import ssim

    low, high = images.pop("Input"), images.pop("Original")
    outputs = np.concatenate(list(images.values()))
    highs, lows = high.repeat(len(outputs), 0), low.repeat(len(outputs), 0)
    values = zip(psnr(outputs, highs), ssim(outputs, highs), consistency(outputs, lows), strict=True)
    return {title: dict(zip(RANKED, map(float, row), strict=True)) for title, row in zip(images, values, strict=True)}


@dataclass(frozen=True, slots=True)
class Window:
    """A square of a picture, as fractions of the picture's sides."""

    top: float
    left: float
    side: float

    def cut(self, pixels: np.ndarray) -> np.ndarray:
        """That part of a picture; (H, W, 3) -> (h, w, 3)."""
        top, left, side = (round(share * len(pixels)) for share in (self.top, self.left, self.side))
        side = max(side, 1)
        return pixels[top : top + side, left : left + side]

    @property
    def centre(self) -> list[float]:
        """Position in percent for CSS's object-position: [x, y]."""
        return [100 * start / max(1e-9, 1 - self.side) for start in (self.left, self.top)]


def most_detailed_window(pictures: Pictures, key: str) -> Window:
    """The quarter in which bicubic differs most from the original; the middle if there is no original."""
    if not pictures.has("Original"):
        return Window(0.375, 0.375, 0.25)
    detail = pictures.read("reference", key).astype(float)
    detail -= pictures.read("bicubic", key) if pictures.has("Bicubic") else detail.mean(axis=(0, 1))
    energy = np.square(detail).mean(axis=2)
    height, width = energy.shape
    side = max(1, min(height, width) // 4)
    step = max(1, side // 4)
    windows = np.lib.stride_tricks.sliding_window_view(energy, (side, side))[::step, ::step].mean(axis=(2, 3))
    row, column = np.unravel_index(int(windows.argmax()), windows.shape)
    return Window(float(row) * step / height, float(column) * step / width, side / min(height, width))
