"""Sources built from real bytes, and reading them back."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.images.rejects import DecodeError
from pipelines.prepare.sources.items import Source
from pipelines.prepare.sources.listing import read_item


def picture(seed: int, kind: str = "PNG") -> bytes:
    """A small valid image, different for every seed."""
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def write(root: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


def tar(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def bytes_of(source: Source) -> dict[str, bytes]:
    return {item.name: read_item(source.uri, item) for item in source.items}


def labels_of(source: Source) -> dict[str, tuple[int | None, str | None]]:
    return {item.name: (item.label, item.synset) for item in source.items}


def rejected(source: Source, name: str) -> DecodeError:
    item = next(item for item in source.items if item.name == name)
    with pytest.raises(DecodeError) as caught:
        read_item(source.uri, item)
    return caught.value
