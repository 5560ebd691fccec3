"""Metrics by programs: real processes, their values by name, cached; what goes wrong is said in one message."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.evaluation.external_metrics import external_values, external_words
from pipelines.evaluation.image_sets import ImageSet
from pipelines.settings.evaluate import MeasureConfig
from sr3core.config import fingerprint
from sr3core.errors import ConfigError, DataError

BRIGHTNESS = """
import json, sys
from PIL import Image, ImageStat
for line in sys.stdin:
    with open(sys.argv[1], "a") as log:
        log.write("asked\\n")
    print(json.dumps({"value": ImageStat.Stat(Image.open(json.loads(line)["image"]).convert("L")).mean[0]}), flush=True)
"""


@pytest.fixture
def images(tmp_path: Path) -> ImageSet:
    folder = tmp_path / "a folder"
    folder.mkdir()
    for number in range(3):
        Image.new("RGB", (8, 8), (40 * number,) * 3).save(folder / f"{number}.png")
    return ImageSet.read(str(folder), "mine")


def program(folder: Path, source: str) -> str:
    path = folder / "metric.py"
    path.write_text(source)
    return f"{sys.executable} {path}"


def test_each_image_is_asked_for_once_and_its_value_kept(images: ImageSet, tmp_path: Path) -> None:
    command = f"{program(tmp_path, BRIGHTNESS)} {tmp_path / 'log'}"
    config = MeasureConfig(metric=(f"brightness={command}",))
    for _ in range(2):
        found = external_values(images, ["2", "0", "1"], config, tmp_path / "cache")
        np.testing.assert_array_equal(found["brightness"], [80, 0, 40])
    assert (tmp_path / "log").read_text().count("asked") == 3
    assert external_words(config)["brightness"].startswith("brightness (by `")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import sys; sys.exit('no weights found')", "ended without an answer; it said: no weights found"),
        ("print('nonsense', flush=True); input()", r"must answer each line \{\"image\": PATH\} by a line"),
        ('input(); print(\'{"error": "too small"}\', flush=True)', "too small"),
        ("input(); print('{\"value\": NaN}', flush=True)", "its value is nan"),
    ],
    ids=["ends", "nonsense", "error", "nan"],
)
def test_a_program_that_gives_no_value_is_named_with_the_image(
    images: ImageSet, tmp_path: Path, source: str, message: str
) -> None:
    config = MeasureConfig(metric=(f"mine={program(tmp_path, source)}",))
    with pytest.raises(DataError, match=message) as caught:
        external_values(images, ["0", "1"], config, tmp_path / "cache")
    assert "metric: mine: `" in str(caught.value)
    assert "0.png" in str(caught.value)


def test_a_program_that_is_not_there(images: ImageSet, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="metric: mine: `no-such-program -x` cannot be started"):
        external_values(images, ["0"], MeasureConfig(metric=("mine=no-such-program -x",)), tmp_path)


@pytest.mark.parametrize("text", ["niqe", "=x", "psnr=x", "a b=x", "niqe= "])
def test_metrics_that_are_not_name_and_command(text: str) -> None:
    with pytest.raises(ConfigError, match=r"metric: .* is not NAME=COMMAND"):
        MeasureConfig(metric=(text,))


def test_a_name_twice_is_refused_and_none_changes_no_fingerprint() -> None:
    with pytest.raises(ConfigError, match="name one twice"):
        MeasureConfig(metric=("a=x", "a=y"))
    assert fingerprint(MeasureConfig()) != fingerprint(MeasureConfig(metric=("a=x",)))
