"""A preparation of small pictures, and looking into what it has written."""

import io
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from pipelines.prepare.writing.progress import PrepareProgress
from pipelines.settings.prepare import PrepareConfig
from pipelines.shards.manifest import load_index, load_manifest

STAGES = ("8-16", "16-32", "base-8")
SAMPLES_PER_SHARD = 6


def quiet(_: PrepareProgress) -> None:
    """Progress that nobody reads."""


def picture(seed: int, size: tuple[int, int] = (40, 36)) -> bytes:
    """A PNG of noise, (height, width)."""
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def pictures(folder: Path, count: int) -> Path:
    """A new folder of PNGs of noise, 0.png and on."""
    folder.mkdir()
    for number in range(count):
        (folder / f"{number}.png").write_bytes(picture(number))
    return folder


def config_for(source: Path, out: Path, **changes: object) -> PrepareConfig:
    defaults = {
        "stages": STAGES,
        "validation_fraction": 0.25,
        "test_fraction": 0.1,
        "samples_per_shard": SAMPLES_PER_SHARD,
        "blur_variants": 2,
        "seed": 3,
    }
    return PrepareConfig(source=str(source), out=str(out), **{**defaults, **changes})  # type: ignore[arg-type]


def samples(directory: Path) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Every record by the tar offsets of the indices."""
    for entries in load_manifest(str(directory)).splits.values():
        for entry in entries:
            data = (directory / entry.name).read_bytes()
            index = load_index(str(directory), entry.name)
            for key, members in zip(index.keys, index.members, strict=True):
                yield key, {name: data[offset : offset + size] for name, (offset, size) in members.items()}


def all_bytes(out: Path) -> dict[str, bytes]:
    """Every file of every stage but the manifests, which say where the preparation was made."""
    found = {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.glob("*/*"))}
    return {name: data for name, data in found.items() if not name.endswith("manifest.json")}


def copy_of(out: Path, target: Path) -> Path:
    return Path(shutil.copytree(out, target))
