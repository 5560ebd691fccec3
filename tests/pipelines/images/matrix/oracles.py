"""Two decoders that share no code of ours, each told to show a file upright, in sRGB and on white."""

import subprocess
from pathlib import Path

import numpy as np
import pyvips

from tests.pipelines.images.matrix.cell import on_white
from tests.skips import find_imagemagick


def libvips(data: bytes) -> np.ndarray | None:
    """uint8 (H, W, 3) as libvips sees it; None if it cannot read it, or only with a warning."""
    try:
        image = pyvips.Image.new_from_buffer(data, "", fail_on="warning").autorot()
        if image.get_typeof("icc-profile-data"):
            image = image.icc_transform("srgb", embedded=True)
        elif image.interpretation not in ("srgb", "rgb16", "b-w", "grey16"):
            image = image.colourspace("srgb")
        scaled = image.numpy() / (65535 if image.format == "ushort" else 255)
        scaled = scaled.reshape(image.height, image.width, -1)
        if not image.hasalpha():
            return on_white(scaled, np.ones((1, 1, 1)))
        return on_white(scaled[..., :-1], scaled[..., -1:])
    except pyvips.Error:
        return None


def imagemagick(files: dict[str, bytes], folder: Path) -> dict[str, np.ndarray]:
    """uint8 (H, W, 3) of each file that ImageMagick reads; a process for each fifty."""
    command = find_imagemagick()
    assert command is not None
    names = {f"{i:05}.image": name for i, name in enumerate(files)}  # it goes by the contents
    for file, name in names.items():
        (folder / file).write_bytes(files[name])
    look = ["-auto-orient", "-background", "white", "-alpha", "remove", "-alpha", "off"]
    colour = ["-colorspace", "sRGB", "-depth", "8", "-type", "TrueColor", "+set", "comment", "-format", "ppm"]
    for batch in _batches(list(names), 50):  # after some hundred warnings it stops
        subprocess.run([*command, "-quiet", *look, *colour, *batch], cwd=folder, capture_output=True)
    outputs = {name: (folder / file).with_suffix(".ppm") for file, name in names.items()}
    return {name: _read_ppm(path) for name, path in outputs.items() if path.exists() and path.stat().st_size > 11}


def _batches(names: list[str], size: int) -> list[list[str]]:
    return [names[i : i + size] for i in range(0, len(names), size)]


def _read_ppm(path: Path) -> np.ndarray:
    data = path.read_bytes()
    width, height = map(int, data.split(maxsplit=3)[1:3])
    return np.frombuffer(data[-height * width * 3 :], np.uint8).reshape(height, width, 3)
