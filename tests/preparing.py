"""Real photos as shards, for tests that train on them."""

from pathlib import Path
from typing import Any

from pipelines.prepare.opened_source import open_configured
from pipelines.prepare.plan.dealing import plan_shards
from pipelines.prepare.plan.shard_plan import load_own_plan, write_plan
from pipelines.prepare.plan.stage_index import StageIndex, open_stages
from pipelines.prepare.preparation import prepare
from pipelines.prepare.writing.shard_task import ShardTask, write_shard
from pipelines.settings.prepare import PrepareConfig
from pipelines.settings.stages import SPLITS, parse_stages
from pipelines.shards.manifest import FORMAT_VERSION, Manifest, ShardEntry, save_manifest


def some_photos(photos: Path, folder: Path, count: int) -> Path:
    """The first `count` bundled photos in a folder of their own."""
    folder.mkdir(parents=True)
    for path in sorted(photos.glob("*.jpg"))[:count]:
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def prepared(photos: Path, folder: Path, count: int, stage: str, **changes: Any) -> str:
    """The first `count` bundled photos as shards of one stage, a fifth held out; needs a running Ray."""
    source, shards = some_photos(photos, folder / "photos", count), str(folder / "shards")
    config = {"validation_fraction": 0.2, **changes}
    prepare(PrepareConfig(source=str(source), out=shards, stages=(stage,), **config))
    return shards


def prepared_classes(photos: Path, folder: Path, count: int, stage: str, **changes: Any) -> str:
    """The first `count` bundled photos as shards of one stage, in two of ImageNet's classes by turns; needs Ray."""
    for number, path in enumerate(sorted(photos.glob("*.jpg"))[:count]):
        place = folder / "train" / ("n01440764", "n01443537")[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number:03d}.JPEG").write_bytes(path.read_bytes())
    source, shards = str(folder / "train"), str(folder / "shards")
    prepare(PrepareConfig(source=source, out=shards, stages=(stage,), **changes))
    return shards


def prepared_without_ray(config: PrepareConfig) -> Path:
    """The folder of the first stage's shards, written one after another in this process."""
    plan, lines = plan_shards(config, open_configured(config))
    write_plan(config, plan, lines)
    for shard in plan.shards:
        write_shard(config, ShardTask(shard, config.stages))
    return Path(config.out) / config.stages[0]


def stages_of(config: PrepareConfig) -> dict[str, StageIndex]:
    """Stage -> what its folder holds of the planned shards."""
    return open_stages(config.out, load_own_plan(config), config.stage_specs)


def manifest_alone(data: Path, stage: str, fingerprint: str = "0", /, **num_samples: int) -> Path:
    """What a command finds out about prepared data before it reads them: a stage's manifest, without the shards."""
    splits = {
        split: (ShardEntry(f"{split}-000000.tar", num_samples[split], 1, "0"),) if num_samples.get(split) else ()
        for split in SPLITS
    }
    (spec,) = parse_stages(stage)
    save_manifest(str(data / stage), Manifest(FORMAT_VERSION, spec, splits, {}, fingerprint))
    return data
