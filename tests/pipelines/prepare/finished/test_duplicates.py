"""Duplicates by bytes: the smallest name is kept, original ones before added ones; only stale shards are redone."""

from pathlib import Path

import pytest

from pipelines.prepare.finished import duplicates
from pipelines.prepare.finished.duplicates import find_duplicates, tasks_without_duplicates
from pipelines.prepare.plan.dealing import plan_addition
from pipelines.prepare.plan.shard_plan import Plan, load_own_plan, write_plan
from pipelines.prepare.sources.listing import open_source
from pipelines.prepare.writing.shard_task import ShardTask, write_shard
from pipelines.settings.prepare import PrepareConfig
from pipelines.shards.manifest import load_index
from tests.pipelines.prepare.preparations import picture
from tests.preparing import prepared_without_ray, stages_of


@pytest.fixture
def config(tmp_path: Path) -> PrepareConfig:
    """Eight images, of which b, d and g have the same bytes; two a shard, written once."""
    source = tmp_path / "source"
    source.mkdir()
    for number, name in enumerate("abcdefgh"):
        (source / f"{name}.png").write_bytes(picture(1 if name in "bdg" else 10 + number))
    config = PrepareConfig(
        source=str(source),
        out=str(tmp_path / "out"),
        stages=("8-16", "16-32"),
        samples_per_shard=2,
        validation_fraction=0,
    )
    prepared_without_ray(config)
    return config


def kept(config: PrepareConfig, plan: Plan) -> dict[str, str]:
    return find_duplicates(plan, [stages_of(config)["8-16"]]).kept


def stale(config: PrepareConfig, plan: Plan) -> list[ShardTask]:
    return list(tasks_without_duplicates(config, plan, stages_of(config)))


def test_the_smallest_name_is_kept(config: PrepareConfig) -> None:
    plan = load_own_plan(config)
    assert kept(config, plan) == {"d.png": "b.png", "g.png": "b.png"}


def test_they_are_the_same_however_few_are_sorted_at_once(config: PrepareConfig, monkeypatch) -> None:
    plan = load_own_plan(config)
    found = kept(config, plan)
    for count in (1, 3):
        monkeypatch.setattr(duplicates, "_SORTED_AT_ONCE", count)
        assert kept(config, plan) == found != {}


def test_shards_with_duplicates_are_written_once_more_and_not_again(config: PrepareConfig) -> None:
    plan = load_own_plan(config)
    tasks = stale(config, plan)
    assert {name: kept for task in tasks for name, kept in task.duplicates.items()} == {
        "d.png": "b.png",
        "g.png": "b.png",
    }
    assert all(task.stages == ("8-16", "16-32") for task in tasks)
    for task in tasks:
        write_shard(config, task)
    assert stale(config, plan) == []
    assert kept(config, plan) == {"d.png": "b.png", "g.png": "b.png"}
    names = [name for shard in plan.shards for name in load_index(f"{config.out}/16-32", shard.name).names]
    assert sorted(names) == [f"{name}.png" for name in "abcefh"]


def test_an_added_copy_never_replaces_what_was_there_first(config: PrepareConfig) -> None:
    source = Path(config.source)
    (source / "0 first by name.png").write_bytes((source / "a.png").read_bytes())
    plan = load_own_plan(config)
    added = plan_addition(config, open_source(config.source), plan)
    assert added is not None
    extended, lines = added
    write_plan(config, extended, lines)
    write_shard(config, ShardTask(extended.shards[-1], config.stages))
    assert kept(config, extended)["0 first by name.png"] == "a.png"
