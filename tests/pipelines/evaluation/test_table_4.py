"""Images from noise against originals read directly from the shards: the same numbers as against a folder of them."""

import json

import pytest
from PIL import Image

from cluster.cli import main
from pipelines.evaluation.evaluate import Folders, evaluate_folders
from pipelines.ingest.split_reader import load_split
from tests.pipelines.sampling.test_generate import make_run
from tests.preparing import prepared


@pytest.fixture(autouse=True)
def without_inception(monkeypatch):
    """Seeded features: Inception's are tested in tests/sr3core."""
    monkeypatch.setattr("pipelines.evaluation.networks.find_inception", lambda: None)


@pytest.fixture(scope="module")
def data(photos, tmp_path_factory, ray_session):
    return prepared(photos, tmp_path_factory.mktemp("table-4"), 40, "8-16", samples_per_shard=10)


@pytest.fixture
def run(data, tmp_path):
    return make_run(tmp_path / "run", data=data)


def test_a_cascades_images_are_drawn_and_compared_with_originals_in_their_shards(run, data, tmp_path, capsys):
    command = ["evaluate", "--run", str(run.path), "--from-noise", "5", "--split", "validation", "--schedule", "3,2"]
    assert main([*command, "--dry-run"]) == 0
    images = load_split(data, "8-16", "validation")
    planned = f"5 images from noise, 5 of them still to be generated, against {len(images.keys)} validation images"
    assert planned in capsys.readouterr().out
    assert main(command) == 0
    result = json.loads((run.path / "table-4.json").read_text())
    assert f"n=5 against {len(images.keys)} references" in result["distance"]["label"]

    for key, image in zip(images.keys, images.high, strict=True):
        (tmp_path / "originals").mkdir(exist_ok=True)
        Image.fromarray(image).save(tmp_path / "originals" / f"{key}.png")
    (folder,) = (run.path / "generated").iterdir()
    drawn = Folders(outputs=[f"sr3={folder}"], references=str(tmp_path / "originals"), paired=False)
    again = evaluate_folders(drawn, str(tmp_path / "again.json"))
    assert again["methods"] == result["methods"]

    drawn = {path: path.stat().st_mtime_ns for path in folder.glob("*.png")}
    more = [argument if argument != "5" else "7" for argument in command]
    assert main([*more, "--limit", "4"]) == 0
    assert drawn.items() <= {path: path.stat().st_mtime_ns for path in folder.glob("*.png")}.items()
    assert "n=7 against 4 references" in json.loads((run.path / "table-4.json").read_text())["distance"]["label"]
    assert main(command) == 0
    assert json.loads((run.path / "table-4.json").read_text())["methods"] == result["methods"]


def test_a_split_without_images_and_a_run_without_a_base_model_are_told(run, data, tmp_path, capsys):
    assert main(["evaluate", "--run", str(run.path), "--from-noise", "5"]) == 1
    assert "8-16 holds no test images; choose another --split" in capsys.readouterr().err
    alone = make_run(tmp_path / "alone", sizes=((8, 16),), num_classes=None, data=data)
    assert main(["evaluate", "--run", str(alone.path), "--from-noise", "5"]) == 2
    assert "has no base model" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["evaluate", "--run", str(run.path), "--from-noise", "1"])
    assert "1 is fewer than 2 images" in capsys.readouterr().err


def test_shards_stand_for_a_folder_of_references_where_nothing_pairs_up_alone(data, tmp_path, capsys):
    paired = ["--outputs", str(tmp_path), "--references", f"{data}/8-16", "--out", str(tmp_path / "a.json")]
    Image.new("RGB", (16, 16)).save(tmp_path / "a.png")
    assert main(["evaluate", *paired]) == 1
    assert "8-16 holds shards, not images; name a folder of images" in capsys.readouterr().err
