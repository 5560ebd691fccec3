"""Retrainings on real photos: one promotes, one does not, one has nothing to do, two run at once."""

import re

import pytest

from cluster.cli import main
from pipelines.registry.registry import Registry
from pipelines.settings.train import RunConfig
from sr3core.config import override
from tests.tune.retraining.chains import add_photos, make_config, moved, retrained, state


def test_the_first_retraining_promotes_whatever_it_is(first):
    registry = Registry(str(first / "models"))
    version, entry = registry.promoted()
    assert version.name == "v0001"
    assert "no model to compare with" in entry.content["why"]
    assert {"fid", "kid", "psnr", "ssim", "consistency"} == version.metrics["values"].keys()
    assert version.content["provenance"]["start"] is None
    assert [path for path in version.content["sha256"] if "schedules/best-3" in path]
    assert not list((first / "work").glob("*/run/*/checkpoints")), "the registry has the weights"
    registry.verify("v0001")


def test_nothing_new_trains_nothing_unless_asked(chain, capsys):
    before = sorted(str(path) for path in (chain / "models").rglob("v*/*"))
    assert retrained(chain, 2) == 0
    assert "holds no new images" in capsys.readouterr().out
    assert not (chain / "work" / "retraining-0002").exists()
    assert sorted(str(path) for path in (chain / "models").rglob("v*/*")) == before
    assert retrained(chain, 2, "--always", searches=()) == 0
    assert state(chain, 2)["end"]["version"] == "v0002"


def test_a_better_model_is_promoted_by_numbers(better):
    folder, _, _ = better
    ended = state(folder, 2)["end"]
    assert ended["promoted"], ended
    registry = Registry(str(folder / "models"))
    version, entry = registry.promoted()
    assert (version.name, entry.content["previous"]) == ("v0002", "v0001")
    comparison = version.metrics["comparison"]
    assert comparison["low"] > 0
    assert (comparison["against"], comparison["turn"]) == ("v0001", 1)
    assert comparison["level"] == pytest.approx(1 - 2 * 0.025 / 30)
    found = re.search(r"better than v0001 by ([\d.e+-]+) on \d+ of (\d+) held-out images \(test\)", ended["why"])
    assert found, ended["why"]
    assert int(found[2]) == registry.version("v0001").metrics["comparison"]["num_images"], "they are frozen"
    assert comparison["promoted"] == registry.version("v0001").metrics["values"], "the same images and noise as then"


def test_of_two_at_once_the_second_says_who_is_at_work(better):
    folder, child, second = better
    assert second.returncode == 1
    assert f"process {child} on" in second.stderr
    assert f"retraining in {folder / 'work'}" in second.stderr


def test_a_retraining_that_is_not_better_is_refused_and_the_old_model_stays(better, photos, tmp_path, capsys):
    folder = moved(better[0], tmp_path / "chain")
    add_photos(photos, folder, 90, 100)
    (stage,) = make_config(folder, 3).run_config.stages
    absurd = RunConfig(name="absurd", stages=(override(stage, optimizer__learning_rate=0.5),))
    assert retrained(folder, 3, run=absurd, searches=()) == 0
    ended = state(folder, 3)["end"]
    assert not ended["promoted"]
    assert "v0003 is NOT promoted: v0002 stays: " in capsys.readouterr().out
    assert re.search(
        r"better than v0002 by -[\d.]+ on .*, 99.83% interval \[-.*\] of comparison 1, which does not lie above 0",
        ended["why"],
    )
    registry = Registry(str(folder / "models"))
    assert registry.promoted()[0].name == "v0002"
    assert registry.version("v0003").metrics["comparison"]["low"] <= 0
    assert retrained(folder, 3, searches=()) == 0
    assert "holds no new images" in capsys.readouterr().out, "what was refused is not tried again on the same images"
    assert main(["models", str(folder / "models"), "--promote", "v0003"]) == 0, "a person may know better"
    assert registry.promoted()[0].name == "v0003"
