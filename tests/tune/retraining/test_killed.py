"""A retraining that is killed resumes where it stopped and ends the same."""

import json

from pipelines.registry.registry import Registry
from tests.tune.retraining.chains import add_photos, make_config, moved, retrained, state, write
from tests.tune.retraining.retrain_driver import POINTS


def test_killed_at_every_point_it_ends_the_same(first, better, photos, driver, tmp_path):
    folder = moved(first, tmp_path / "chain")
    add_photos(photos, folder, 60, 90)
    config = write(folder, make_config(folder, 160))
    for point in POINTS:
        driver.start(config, kill=point)
        assert driver.status() == -9, point
    driver.start(config)
    assert driver.status() == 0
    straight, killed = Registry(str(better[0] / "models")), Registry(str(folder / "models"))
    assert [version.name for version in killed.versions()] == ["v0001", "v0002"]
    assert [entry.content["version"] for entry in killed.history()] == ["v0001", "v0002"]
    assert killed.promoted()[0].name == "v0002"
    ours, theirs = killed.version("v0002").content, straight.version("v0002").content
    weights = [path for path in theirs["sha256"] if path.endswith(".safetensors")]
    assert weights
    assert {path: ours["sha256"][path] for path in weights} == {path: theirs["sha256"][path] for path in weights}
    schedules = [
        json.loads(next(r.glob("v0002/8-16/schedules/best-3.json")).read_text())["gammas"]
        for r in (folder / "models", better[0] / "models")
    ]
    assert schedules[0] == schedules[1]
    for content in (ours, theirs):
        del content["metrics"]["comparison"]["identity"]  # it knows the schedules' own provenance, with paths
    assert ours["metrics"] == theirs["metrics"]
    assert state(folder, 2)["end"]["why"] == state(better[0], 2)["end"]["why"]
    killed.verify("v0002")
    assert not list((folder / "work").glob("*/run/*/checkpoints"))


def test_an_unfinished_retraining_goes_on_with_its_own_configuration_or_is_given_up(chain, photos, driver, capsys):
    add_photos(photos, chain, 60, 70)
    driver.start(write(chain, make_config(chain, 50, searches=())), kill="training")
    assert driver.status() == -9
    assert retrained(chain, 60, searches=()) == 2
    assert "started with a different configuration (num_steps: 50 -> 60)" in capsys.readouterr().err
    assert retrained(chain, 2, "--fresh", searches=()) == 0
    assert state(chain, 2)["end"] == {"version": None, "promoted": False, "why": "abandoned by --fresh"}
    assert state(chain, 3)["end"]["version"] == "v0002"
