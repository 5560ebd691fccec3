"""What a preparation says of the sharpness of its images."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.prepare.finished.manifest_writer import write_manifest
from pipelines.prepare.finished.sharpness import sharpness_remarks
from pipelines.prepare.plan.shard_plan import load_own_plan
from pipelines.settings.prepare import PrepareConfig
from tests.preparing import prepared_without_ray, stages_of

SIDE = 64


def as_jpeg(image: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=15)
    return Image.open(buffer)


def enlarged(image: Image.Image) -> Image.Image:
    return image.resize((SIDE // 2, SIDE // 2), Image.Resampling.BOX).resize((SIDE, SIDE), Image.Resampling.BICUBIC)


@pytest.mark.parametrize(
    ("make", "warning"),
    [
        (lambda image: image, None),
        (enlarged, "warning: 16-64: the images lack fine detail"),
        (as_jpeg, "warning: 16-64: the images show the blocks of strong JPEG compression"),
    ],
    ids=["sharp", "enlarged", "blocky"],
)
def test_sources_are_judged_by_what_their_records_show(
    photos: Path, tmp_path: Path, make: Callable[[Image.Image], Image.Image], warning: str | None
) -> None:
    (tmp_path / "source").mkdir()
    for path in sorted(photos.glob("*.jpg"))[:12]:
        small = Image.open(path).convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX)
        make(small).save(tmp_path / "source" / f"{path.stem}.png")
    said = _said(tmp_path)
    assert said[0].startswith("16-64: fine detail ")
    assert [line for line in said[1:] if not line.startswith(warning or "-")] == []
    assert len(said) == (1 if warning is None else 2)


def test_a_few_images_are_not_judged(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "source" / "a.png")
    assert _said(tmp_path) == []


def _said(folder: Path) -> list[str]:
    config = PrepareConfig(
        source=str(folder / "source"), out=str(folder / "out"), stages=("16-64",), validation_fraction=0.0
    )
    prepared_without_ray(config)
    stage = config.stage_specs[0]
    manifest = write_manifest(config, load_own_plan(config), stage, stages_of(config)[stage.name])
    return list(sharpness_remarks(config, manifest))
