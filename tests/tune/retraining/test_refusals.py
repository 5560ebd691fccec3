"""What would fail hours later is refused at once: configurations, held-out images, unreadable states."""

import json
import os
import re
import shutil

import pytest

from cluster.cli import main
from pipelines.registry.registry import Registry
from pipelines.storage.leases.journal import Journal
from pipelines.storage.leases.lease import hold, is_held
from sr3core.config import override, to_dict
from sr3core.errors import ConfigError, Sr3Error
from tests.tune.retraining.chains import add_photos, make_config, retrained
from tune.search.settings import SearchConfig


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"registry": ""}, "registry: empty"),
        ({"work": "s3://bucket/work"}, "work: s3://bucket/work is a URI"),
        ({"searches": (SearchConfig(stage="8-61"),)}, "the run has no stage '8-61'"),
        ({"num_steps": 0}, "num_steps: 0 is not positive"),
        ({"run": "demo", "searches": ()}, "prepare.stages: 12-24, 12-48, 24-48 missing"),
        ({"run": "dmeo"}, "did you mean 'demo'"),
    ],
)
def test_what_would_fail_at_night_is_refused_now(changes, message, tmp_path):
    values = {"num_steps": 5, **changes}
    with pytest.raises(ConfigError, match=re.escape(message)):
        make_config(tmp_path, values.pop("num_steps"), **values)


def test_a_misspelt_key_is_named(tmp_path, capsys):
    content = to_dict(make_config(tmp_path, 5))
    content["promotion"]["objektive"] = "fid"
    (tmp_path / "retrain.json").write_text(json.dumps(content))
    assert main(["retrain", str(tmp_path / "retrain.json")]) == 2
    assert "unknown key 'promotion.objektive', did you mean 'objective'" in capsys.readouterr().err


def test_too_few_held_out_images_are_reported_before_the_training(photos, tmp_path, ray_session, capsys):
    add_photos(photos, tmp_path, 0, 20)
    prepare = override(make_config(tmp_path, 5).prepare, test_fraction=0.0)
    assert retrained(tmp_path, 5, "--dry-run", prepare=prepare) == 1
    assert "holds 0 test images, and retraining needs at least 3" in capsys.readouterr().err
    assert retrained(tmp_path, 5, prepare=prepare) == 1
    assert "holds 0 test images" in capsys.readouterr().err
    assert not (tmp_path / "work").exists()


def test_a_rehearsal_tells_what_would_be_trained_and_writes_nothing(photos, tmp_path, capsys):
    add_photos(photos, tmp_path, 0, 60)
    assert retrained(tmp_path, 5, "--dry-run") == 0
    prepared, trained = capsys.readouterr().out.splitlines()
    assert prepared.startswith("would prepare ")
    assert re.search(r"would train .* on \d+ images, and promote it in", trained)
    assert not (tmp_path / "work").exists()
    shutil.rmtree(tmp_path / "photos")
    assert retrained(tmp_path, 5, "--dry-run") == 1
    assert "does not exist" in capsys.readouterr().err, "as the retraining itself would end, after 20 s"


@pytest.mark.parametrize("rehearsal", [(), ("--dry-run",)])
def test_a_registry_in_use_is_refused_before_anything_starts(rehearsal, tmp_path, capsys):
    registry = Registry(str(tmp_path / "models"))
    with hold(registry.lease, "retraining in another folder", 60):
        assert retrained(tmp_path, 5, *rehearsal) == 1
    assert f"process {os.getpid()} on " in (told := capsys.readouterr().err)
    assert "(retraining in another folder, since " in told
    assert not (tmp_path / "work").exists()


def test_a_retraining_holds_its_lease_before_ray_starts_and_leaves_nothing_behind(
    photos, tmp_path, monkeypatch, capsys
):
    add_photos(photos, tmp_path, 0, 60)
    registry, held = Registry(str(tmp_path / "models")), []

    def no_ray(address: str | None) -> None:
        held.append(is_held(Journal(registry.lease).last()))
        raise Sr3Error("Ray does not start")

    monkeypatch.setattr("cluster.commands.retrain.ray_session", no_ray)
    assert retrained(tmp_path, 5) == 1
    assert "Ray does not start" in capsys.readouterr().err
    assert held == [True]
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [('{"format"', "is damaged"), ('{"format": "sr3-retraining", "format_version": 9}', "format version 9")],
)
def test_a_state_that_cannot_be_read_is_named(photos, tmp_path, ray_session, capsys, text, message):
    folder = tmp_path / "work" / "retraining-0001"
    folder.mkdir(parents=True)
    (folder / "state.json").write_text(text)
    add_photos(photos, tmp_path, 0, 3)
    assert retrained(tmp_path, 5) == 1
    assert message in capsys.readouterr().err
