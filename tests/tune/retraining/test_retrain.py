"""Retrainings on real photos, tiny: one promotes, one refuses, one has nothing to do, one is killed everywhere."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cluster.cli import main
from pipelines.registry.registry import Registry
from pipelines.settings.evaluate import EvaluateConfig
from pipelines.settings.prepare import PrepareConfig
from pipelines.settings.presets import small_stage
from pipelines.settings.train import RunConfig
from pipelines.storage.journal import Journal
from pipelines.storage.lease import hold, is_held
from sr3core.config import override, to_dict
from sr3core.errors import ConfigError
from tests.commands import ROOT
from tests.processes import wait_for
from tests.tune.retraining.retrain_driver import POINTS
from tune.retraining.settings import PromotionConfig, RetrainConfig
from tune.search.settings import SearchConfig

DRIVER = Path(__file__).with_name("retrain_driver.py")


def make_config(folder: Path, num_steps: int | None, **changes: Any) -> RetrainConfig:
    """A chain in a folder: 6 steps the first time, which teach next to nothing, num_steps afterwards."""
    stage = override(
        small_stage(8, 16, base_channels=8, num_steps=6, num_workers=1),
        placement__num_workers=0,
        checkpoint_every=40,
        num_lanes=4,
        validation_every=1000,
        num_validation_images=8,
        optimizer__warmup_steps=5,
        optimizer__ema_decay=0.9,
    )
    values = {
        "prepare": PrepareConfig(
            source=str(folder / "photos"),
            out=str(folder / "data"),
            stages=("8-16",),
            validation_fraction=0.2,
            test_fraction=0.3,
            samples_per_shard=8,
            num_workers=2,
        ),
        "run": RunConfig(name="tiny", stages=(stage,)),
        "registry": str(folder / "models"),
        "work": str(folder / "work"),
        "num_steps": num_steps,
        "searches": (
            SearchConfig(
                stage="8-16",
                num_steps=3,
                num_trials=7,
                num_images=6,
                warm_starts=(),
                features="seeded",
                confirm_split=None,
                num_concurrent=2,
            ),
        ),
        "evaluate": EvaluateConfig(schedule=None if changes.get("searches", True) else "3"),
        "promotion": PromotionConfig(features="seeded"),
        **changes,
    }
    return RetrainConfig(**values)


def write(folder: Path, config: RetrainConfig) -> str:
    path = folder / "retrain.json"
    path.write_text(json.dumps(to_dict(config)))
    return str(path)


def add_photos(photos: Path, folder: Path, first: int, last: int) -> None:
    (folder / "photos").mkdir(parents=True, exist_ok=True)
    for path in sorted(photos.glob("*.jpg"))[first:last]:
        shutil.copy(path, folder / "photos" / path.name)


def state(folder: Path, number: int) -> dict[str, Any]:
    return json.loads((folder / "work" / f"retraining-{number:04d}" / "state.json").read_text())


def retrained(folder: Path, num_steps: int | None, *options: str, **changes: Any) -> int:
    return main(["retrain", write(folder, make_config(folder, num_steps, **changes)), *options])


@pytest.fixture(scope="module")
def first(photos, tmp_path_factory, ray_session):
    """A chain after its first retraining."""
    folder = tmp_path_factory.mktemp("chain") / "first"
    add_photos(photos, folder, 0, 60)
    assert retrained(folder, 160) == 0
    return folder


def moved(chain: Path, folder: Path) -> Path:
    """A copy of a chain at another place."""
    return Path(shutil.copytree(chain, folder))


@pytest.fixture
def chain(first, tmp_path):
    """A copy of it."""
    return moved(first, tmp_path / "chain")


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
    assert "nothing is new" in capsys.readouterr().out
    assert not (chain / "work" / "retraining-0002").exists()
    assert sorted(str(path) for path in (chain / "models").rglob("v*/*")) == before
    assert retrained(chain, 2, "--always", searches=()) == 0
    assert state(chain, 2)["end"]["version"] == "v0002"


@pytest.fixture(scope="module")
def driver(ray_session):
    import ray

    address = ray.get_runtime_context().gcs_address
    with subprocess.Popen(
        [sys.executable, str(DRIVER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:

        def start(config: str, kill: str | None = None) -> int:
            arguments = ["retrain", config, "--address", address]
            process.stdin.write(json.dumps({"arguments": arguments, "kill": kill}) + "\n")
            process.stdin.flush()
            return int(process.stdout.readline())

        start.status = lambda: int(process.stdout.readline())
        yield start
        process.stdin.close()


@pytest.fixture(scope="module")
def better(first, photos, driver, tmp_path_factory):
    """A copy of the chain, retrained on more photos in a process of its own; and what a second one was told."""
    folder = moved(first, tmp_path_factory.mktemp("better") / "chain")
    add_photos(photos, folder, 60, 90)
    config = write(folder, make_config(folder, 160))
    child = driver(config)
    lease = Journal(Registry(str(folder / "models")).lease)
    wait_for(lambda: is_held(lease.last()))
    second = subprocess.run(
        [sys.executable, "-m", "cluster", "retrain", config], cwd=ROOT, capture_output=True, text=True
    )
    assert driver.status() == 0
    return folder, child, second


def test_a_better_model_is_promoted_by_numbers(better):
    folder, _, _ = better
    ended = state(folder, 2)["end"]
    assert ended["promoted"], ended
    registry = Registry(str(folder / "models"))
    version, entry = registry.promoted()
    assert (version.name, entry.content["previous"]) == ("v0002", "v0001")
    comparison = version.metrics["comparison"]
    assert comparison["low"] > 0
    assert comparison["improvement"] == pytest.approx(comparison["promoted"]["fid"] - comparison["candidate"]["fid"])
    found = re.search(r"against ([\d.e+-]+) of v0001 on the same (\d+) held-out images \(test\)", ended["why"])
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
    assert re.search(r"improved by -[\d.]+, 95% interval \[-.*\], which does not lie above 0", ended["why"])
    registry = Registry(str(folder / "models"))
    assert registry.promoted()[0].name == "v0002"
    assert registry.version("v0003").metrics["comparison"]["low"] <= 0
    assert retrained(folder, 3, searches=()) == 0
    assert "nothing is new" in capsys.readouterr().out, "what was refused is not tried again on the same images"
    assert main(["models", str(folder / "models"), "--promote", "v0003"]) == 0, "a person may know better"
    assert registry.promoted()[0].name == "v0003"


def test_killed_at_every_point_it_ends_the_same(first, better, photos, driver, tmp_path):
    folder = moved(first, tmp_path / "chain")
    add_photos(photos, folder, 60, 90)
    config = write(folder, make_config(folder, 160))
    for point in POINTS:
        driver(config, kill=point)
        assert driver.status() == -9, point
    driver(config)
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
    driver(write(chain, make_config(chain, 50, searches=())), kill="training")
    assert driver.status() == -9
    assert retrained(chain, 60, searches=()) == 2
    assert "begun with another configuration (num_steps: 50 -> 60)" in capsys.readouterr().err
    assert retrained(chain, 2, "--fresh", searches=()) == 0
    assert state(chain, 2)["end"] == {"version": None, "promoted": False, "why": "given up by --fresh"}
    assert state(chain, 3)["end"]["version"] == "v0002"


def test_a_model_that_others_promoted_meanwhile_is_what_counts(chain, photos, monkeypatch):
    """Between comparison and promotion somebody promotes: the new model is compared with that one."""
    add_photos(photos, chain, 60, 70)
    assert retrained(chain, 1, "--always", searches=()) == 0
    add_photos(photos, chain, 70, 80)
    promote, registry = Registry.promote, Registry(str(chain / "models"))
    calls = []

    def meddled(self, name, why, after):
        calls.append(why)
        if len(calls) == 1:
            registry.roll_back("v0002")
        return promote(self, name, why, after)

    monkeypatch.setattr(Registry, "promote", meddled)
    assert retrained(chain, 160, searches=()) == 0
    assert len(calls) == 2
    assert "of v0001 on" in calls[0]
    assert "of v0002 on" in calls[1]
    assert [entry.content["version"] for entry in registry.history()] == ["v0001", "v0002", "v0003"]


def test_a_training_that_fails_is_told_and_the_old_model_stays(chain, photos, capsys):
    add_photos(photos, chain, 60, 70)
    config = make_config(chain, 100, searches=())
    wild = override(config.run_config.stages[0], optimizer__learning_rate=1e30, optimizer__gradient_clip=None)
    config = make_config(chain, 100, searches=(), run=RunConfig(name="wild", stages=(wild,)))
    assert main(["retrain", write(chain, config)]) == 1
    assert "8-16: training failed" in (message := capsys.readouterr().err) or "8-16: " in message
    assert "--fresh gives this retraining up" in message
    assert Registry(str(chain / "models")).promoted()[0].name == "v0001"


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


def test_too_few_held_out_images_are_told_before_the_training(photos, tmp_path, ray_session, capsys):
    add_photos(photos, tmp_path, 0, 20)
    prepare = override(make_config(tmp_path, 5).prepare, test_fraction=0.0)
    assert retrained(tmp_path, 5, prepare=prepare) == 1
    assert "holds 0 test images" in capsys.readouterr().err
    assert not (tmp_path / "work").exists()


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


def test_the_lease_is_given_back_when_a_retraining_fails(chain):
    lease = Registry(str(chain / "models")).lease
    with hold(lease, "nobody has it", 5):
        assert Journal(lease).last().content["purpose"] == "nobody has it"
