"""Rejects that are tried again: afterwards every byte is that of a fresh preparation."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.cli import main
from pipelines.images.rejects import RETRIABLE
from pipelines.prepare.finished.duplicates import tasks_without_duplicates
from pipelines.prepare.finished.manifest_writer import write_manifest
from pipelines.prepare.finished.remaining_work import missing_tasks
from pipelines.prepare.finished.retried_rejects import begin_retry, find_retry
from pipelines.prepare.finished.verify import verify
from pipelines.prepare.plan.dealing import plan_shards
from pipelines.prepare.plan.shard_plan import is_begun, load_own_plan, write_plan
from pipelines.prepare.preparation import describe_plan, prepare
from pipelines.prepare.sources.listing import open_source
from pipelines.prepare.writing.shard_task import write_shard
from pipelines.settings.prepare import PrepareConfig
from pipelines.shards.manifest import load_manifest
from tests.pipelines.prepare.preparations import all_bytes, picture, quiet
from tests.preparing import stages_of

NAMES = [f"{letter}.png" for letter in "abcdefghijkl"]
BROKEN = b"<html>503 Slow Down</html>"


def prepare_here(config: PrepareConfig, *reasons: str) -> int:
    """As `prepare` does, but in this process; returns how many shards were written."""
    plan, lines = plan_shards(config, open_source(config.source))
    if not is_begun(config, plan):
        write_plan(config, plan, lines)
    stages = stages_of(config)
    begin_retry(config, find_retry(config, plan, stages, reasons), stages)
    written = 0
    for find in (
        lambda: missing_tasks(plan, stages),
        lambda: tasks_without_duplicates(config, plan, stages),
    ):
        for task in list(find()):
            for name, summary in write_shard(config, task).summaries.items():
                stages[name].add(summary)
            written += 1
    for stage in config.stage_specs:
        write_manifest(config, plan, stage, stages[stage.name])
    return written


@pytest.fixture
def config(tmp_path: Path) -> PrepareConfig:
    """Twelve images, two a shard, of which a and f are broken, and c, h and k are the same."""
    source = tmp_path / "source"
    source.mkdir()
    for number, name in enumerate(NAMES):
        (source / name).write_bytes(BROKEN if name[0] in "af" else picture(99 if name[0] in "chk" else number))
    config = PrepareConfig(
        source=str(source),
        out=str(tmp_path / "out"),
        stages=("8-16", "base-8"),
        samples_per_shard=2,
        validation_fraction=0.3,
    )
    prepare_here(config)
    assert load_manifest(f"{config.out}/8-16").num_rejects == {"duplicate": 2, "not_an_image": 2}
    return config


def fresh(config: PrepareConfig, tmp_path: Path) -> dict[str, bytes]:
    """What the source gives now."""
    prepare_here(replace(config, out=str(tmp_path / "fresh")))
    return all_bytes(tmp_path / "fresh")


def put(config: PrepareConfig, name: str, data: bytes) -> None:
    (Path(config.source) / name).write_bytes(data)


def mend_one(config: PrepareConfig) -> None:
    put(config, "a.png", picture(50))


def mend_a_copy_of_others(config: PrepareConfig) -> None:
    """It sorts before the copy that was kept."""
    put(config, "a.png", picture(99))


@pytest.mark.parametrize("change", [mend_one, mend_a_copy_of_others])
def test_a_retry_gives_the_bytes_of_a_fresh_preparation(config: PrepareConfig, tmp_path: Path, change) -> None:
    change(config)
    before = load_manifest(f"{config.out}/8-16")
    prepare_here(config, "not_an_image")
    assert all_bytes(Path(config.out)) == fresh(config, tmp_path)
    assert verify(config.out) == []
    after = load_manifest(f"{config.out}/8-16")
    assert after.num_rejects["not_an_image"] == 1
    assert sum(map(after.num_samples, after.splits)) == sum(map(before.num_samples, before.splits)) + (
        change is mend_one
    )


def shard_of(config: PrepareConfig, name: str) -> Path:
    """The index that names an image."""
    (found,) = (path for path in Path(config.out, "8-16").glob("*.index.json") if f'"{name}"' in path.read_text())
    return found


def test_copies_come_back_when_the_one_that_was_kept_is_rejected_in_a_retried_shard(
    config: PrepareConfig, tmp_path: Path
) -> None:
    retried = {
        name.removesuffix(".tar")
        for _, name in find_retry(config, load_own_plan(config), stages_of(config), RETRIABLE).indices
    }
    assert retried
    # Whichever image shares a shard with a reject gets copies in other shards, and is then lost itself.
    (partner,) = [
        name
        for name in NAMES
        if name[0] not in "afchk" and shard_of(config, name).name.removesuffix(".index.json") in retried
    ][:1]
    copies = [name for name in NAMES if name > partner and name[0] not in "afchk"][:2]
    copies = copies or [name for name in NAMES if name[0] in "k"]
    for name in copies:
        put(config, name, (Path(config.source) / partner).read_bytes())
    prepare_here(replace(config, out=str(tmp_path / "second")))
    config = replace(config, out=str(tmp_path / "second"))
    assert load_manifest(f"{config.out}/8-16").num_rejects["duplicate"] == 2 + len(copies)
    put(config, partner, BROKEN)
    prepare_here(config, "not_an_image")
    assert all_bytes(Path(config.out)) == fresh(config, tmp_path)
    assert verify(config.out) == []


def test_an_interrupted_retry_is_completed_by_any_later_run(config: PrepareConfig, tmp_path: Path) -> None:
    mend_one(config)
    stages = stages_of(config)
    begin_retry(config, find_retry(config, load_own_plan(config), stages, ["not_an_image"]), stages)
    assert not Path(config.out, "8-16", "manifest.json").exists(), "nobody reads shards that are about to change"
    prepare_here(config)
    assert all_bytes(Path(config.out)) == fresh(config, tmp_path)


def test_the_command_tries_again(config: PrepareConfig, tmp_path: Path, ray_session: str) -> None:
    mend_one(config)
    summary = prepare(config, quiet, retry_rejects=["not_an_image"])
    assert summary.num_shards_written >= 2
    assert all_bytes(Path(config.out)) == fresh(config, tmp_path)


def test_a_dry_run_counts_them_and_changes_nothing(config: PrepareConfig) -> None:
    before = all_bytes(Path(config.out))
    text = describe_plan(config, retry_rejects=["not_an_image", "corrupt"])
    assert "rejected images to try again: 2 not_an_image; 2 finished shards are written anew for that" in text
    assert "try again: none; 0 finished shards" in describe_plan(config, retry_rejects=["corrupt"])
    assert all_bytes(Path(config.out)) == before
    assert prepare_here(config, "corrupt") == 0


def test_a_retry_that_finds_nothing_to_mend_changes_no_byte(config: PrepareConfig) -> None:
    before = all_bytes(Path(config.out))
    assert prepare_here(config, "not_an_image") > 0
    assert all_bytes(Path(config.out)) == before


def test_a_shard_that_loses_its_last_sample_leaves_no_tar(config: PrepareConfig) -> None:
    for name in NAMES[1:]:
        put(config, name, BROKEN)
    put(config, "a.png", picture(1))
    for stage in config.stages:
        for index in Path(config.out, stage).glob("*.index.json"):
            index.unlink()
    prepare_here(config)
    assert len(list(Path(config.out, "8-16").glob("*.tar"))) == 1
    assert verify(config.out) == []


def command(*reasons: str) -> Iterator[str]:
    yield from ("prepare", "--source", "photos", "--out", "data", "--stages", "8-16", "--retry-rejects", *reasons)


def test_reasons_that_mean_nothing_are_refused_with_those_that_do(capsys) -> None:
    assert main([*command("corrupt", "unreadible")]) != 0
    message = capsys.readouterr().err
    assert "'unreadible' is not one of the reasons empty, not_an_image, unsupported, truncated" in message
    assert "unwritten" not in message
    assert main([*command("duplicate")]) != 0
    assert "finds the duplicates anew" in capsys.readouterr().err
