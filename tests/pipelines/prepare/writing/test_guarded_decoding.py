"""Images that crash or hang their decoder: rejected by name, and the rest of the shard is what it would be without."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.images.rejects import DecodeError, RejectReason
from pipelines.prepare.plan.dealing import plan_shards
from pipelines.prepare.plan.shard_plan import load_own_plan, write_plan
from pipelines.prepare.sources.listing import open_source
from pipelines.prepare.writing.guarded_decoding import guarded_calls
from pipelines.prepare.writing.shard_task import ShardTask, write_shard
from pipelines.settings.prepare import PrepareConfig
from pipelines.shards.manifest import load_index
from tests.pipelines.prepare.preparations import all_bytes, picture
from tests.poison import KINDS, lay_plugin, poison
from tests.preparing import prepared_without_ray


@pytest.fixture
def config(tmp_path: Path) -> PrepareConfig:
    """Six images that can be decoded, and one that cannot."""
    source = tmp_path / "source"
    source.mkdir()
    for number in range(6):
        (source / f"{number}.png").write_bytes(picture(number))
    (source / "3 broken.png").write_bytes(picture(9)[:99])
    return PrepareConfig(
        source=str(source), out=str(tmp_path / "out"), stages=("8-16", "base-8"), samples_per_shard=4, image_seconds=5
    )


def test_a_process_for_each_image_makes_the_same_bytes(config: PrepareConfig, tmp_path: Path) -> None:
    prepared_without_ray(config)
    before = all_bytes(Path(config.out))
    for shard in load_own_plan(config).shards:
        for file in Path(config.out).glob(f"*/{shard.name.removesuffix('.tar')}*"):
            file.unlink()
        write_shard(config, ShardTask(shard, config.stages, isolated=True))
    assert all_bytes(Path(config.out)) == before
    assert not set(config.stages) - {path.parent.name for path in Path(config.out).glob("*/*.tar")}


def test_poison_is_rejected_by_name_and_nothing_else_is(
    config: PrepareConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(lay_plugin(tmp_path / "plugin"))
    for name in (*KINDS, "harmless"):
        (Path(config.source) / f"{name}.ppm").write_bytes(poison(name))
    config = replace(config, samples_per_shard=99, validation_fraction=0.0)
    plan, lines = plan_shards(config, open_source(config.source))
    write_plan(config, plan, lines)
    (shard,) = plan.shards
    write_shard(config, ShardTask(shard, config.stages, isolated=True))
    index = load_index(f"{config.out}/8-16", shard.name)
    found = {reject.path: reject.detail for reject in index.rejects if reject.reason is RejectReason.CRASHED}
    assert found == {f"{kind}.ppm": detail for kind, detail in KINDS.items()}
    assert sorted(index.names) == [*(f"{number}.png" for number in range(6)), "harmless.ppm"]


def only_alone(parent: int) -> int:
    """A decoder that does not fit into a process whose threads hold memory."""
    if os.getpid() == parent:
        raise MemoryError
    return os.getpid()


def only_alone_as_a_reject(parent: int) -> int:
    try:
        return only_alone(parent)
    except MemoryError as error:
        raise DecodeError(RejectReason.TOO_LARGE, "does not fit into memory") from error


@pytest.mark.parametrize("decoder", [only_alone, only_alone_as_a_reject])
def test_an_image_that_does_not_fit_beside_images_that_are_read_meanwhile_is_decoded_alone(config, decoder) -> None:
    with guarded_calls(config, isolated=False) as call:
        assert call(decoder, os.getpid()) != os.getpid()
        with pytest.raises(DecodeError, match="does not fit"):
            call(never_fits)


def never_fits() -> None:
    raise DecodeError(RejectReason.TOO_LARGE, "does not fit into memory") from MemoryError()
