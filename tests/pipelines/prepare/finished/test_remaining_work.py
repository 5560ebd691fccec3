"""What an unfinished preparation still has to write: what is missing, damaged or of another plan, and nothing else."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.prepare.finished.remaining_work import delete_leftovers, missing_tasks
from pipelines.prepare.plan.shard_plan import load_own_plan
from pipelines.settings.prepare import PrepareConfig
from pipelines.shards.manifest import load_index, save_index
from tests.pipelines.prepare.preparations import pictures
from tests.preparing import prepared_without_ray, stages_of

SHARD = "train-000001.tar"


@pytest.fixture
def config(tmp_path: Path) -> PrepareConfig:
    """Six images, two a shard, of two stages, all written."""
    source = pictures(tmp_path / "source", 6)
    config = PrepareConfig(
        source=str(source),
        out=str(tmp_path / "out"),
        stages=("8-16", "base-8"),
        samples_per_shard=2,
        validation_fraction=0,
    )
    prepared_without_ray(config)
    return config


def remaining(config: PrepareConfig) -> list[tuple[str, tuple[str, ...]]]:
    plan = load_own_plan(config)
    tasks = missing_tasks(plan, stages_of(config))
    return [(task.shard.name, task.stages) for task in tasks]


def of_another_plan(index: Path) -> None:
    save_index(str(index.parent), replace(load_index(str(index.parent), SHARD), plan="another"))


@pytest.mark.parametrize(
    "damage",
    [
        Path.unlink,
        lambda index: index.write_bytes(index.read_bytes()[:-9]),
        lambda index: (index.parent / SHARD).unlink(),
        of_another_plan,
    ],
    ids=["index missing", "index damaged", "tar missing", "another plan"],
)
def test_a_shard_that_is_not_finished_is_written_for_the_stages_that_lack_it(
    config: PrepareConfig, damage: Callable[[Path], object]
) -> None:
    assert remaining(config) == []
    damage(Path(config.out) / "base-8" / "train-000001.index.json")
    assert remaining(config) == [(SHARD, ("base-8",))]


def test_a_shard_whose_images_were_all_rejected_has_no_tar_and_is_finished(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "broken.png").write_bytes(b"no image")
    config = PrepareConfig(source=str(tmp_path / "source"), out=str(tmp_path / "out"), stages=("8-16",))
    folder = prepared_without_ray(config)
    assert not list(folder.glob("*.tar"))
    assert remaining(config) == []


def test_what_a_killed_process_left_is_deleted_and_nothing_else(config: PrepareConfig) -> None:
    folder = Path(config.out) / "8-16"
    whole = set(folder.iterdir())
    (folder / ".0123abcd-train-000000.tar.tmp").write_bytes(b"half")
    delete_leftovers(config.out, config.stage_specs)
    assert set(folder.iterdir()) == whole
