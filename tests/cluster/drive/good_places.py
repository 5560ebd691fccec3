"""One tiny, whole example of everything that a command reads or writes: photos, shards, a run, a registry, a study."""

import json
from pathlib import Path

import torch

from pipelines.prepare.finished.manifest_writer import write_manifest
from pipelines.prepare.finished.remaining_work import missing_tasks
from pipelines.prepare.plan.stage_index import open_stages
from pipelines.prepare.preparation import begin
from pipelines.prepare.writing.shard_task import write_shard
from pipelines.registry.registry import Registry
from pipelines.runs.run_folder import Run, create_run, data_fingerprints, open_run
from pipelines.settings.prepare import PrepareConfig
from pipelines.settings.presets import small_stage
from pipelines.settings.train import RunConfig, TrainConfig
from pipelines.training.outcome import write_outcome
from sr3core import strict_json
from sr3core.checkpoint import save_checkpoint, take_snapshot
from sr3core.config import override, to_dict
from sr3core.training import create_state
from tests.reporting import make_run
from tests.study_subjects import make_study
from tune.retraining.settings import PromotionConfig, RetrainConfig

LINE = {
    **{"step": 20, "kind": "train", "learning_rate": 0.001, "loss": 0.5, "gradient_norm": 0.25, "written": 1.7e9},
    **{"images_per_second": 8.0, "data_wait": 0.0, "memory_bytes": 1e9, "world_size": 1, "seconds": 40.0},
}


def make(root: Path, photos: Path) -> None:
    """Make them in an empty folder: photos/, data/, run/, cascade/, reported/,
    models/, images/, study/, train.json, retrain.json, labels.csv; and weights.pth, which no program can import."""
    _photos(root / "photos", photos)
    config = PrepareConfig(
        source=str(root / "photos"),
        out=str(root / "data"),
        stages=("8-16", "base-8"),
        validation_fraction=0.3,
        test_fraction=0.3,
        samples_per_shard=8,
    )
    _shards(config)
    upscaler, base = (
        small_stage(low, 2 * (low or 4), base_channels=8, num_steps=40, num_workers=1) for low in (8, None)
    )
    run = _run(root / "run", config.out, upscaler)
    _run(root / "cascade", config.out, base, upscaler)
    registry = Registry(str(root / "models"))
    registry.promote(registry.publish(run, "a", {}, {"data": {}}).name, "the first", registry.promoted()[1])
    registry.publish(run, "b", {}, {"data": {}})
    make_run(root / "reported", photos, num_images=4)
    make_study(root, photos)
    (root / "train.json").write_text(json.dumps(to_dict(run.config)))
    chain = RetrainConfig(
        prepare=override(config, out=str(root / "more")),
        run=run.config,
        registry=str(root / "models"),
        work=str(root / "work"),
        searches=(),
        promotion=PromotionConfig(features="seeded"),
    )
    (root / "retrain.json").write_text(json.dumps(to_dict(chain)))
    rows = "".join(f"{path.name},1\n" for path in sorted((root / "photos").iterdir()))
    (root / "labels.csv").write_text(f"file,imagenet_index\n{rows}")
    torch.save({"conv.weight": torch.zeros(1)}, root / "weights.pth")


def _photos(folder: Path, photos: Path) -> None:
    folder.mkdir(parents=True)
    for path in sorted(photos.glob("*.jpg"))[:24]:
        (folder / path.name).write_bytes(path.read_bytes())


def _shards(config: PrepareConfig) -> None:
    """A preparation, without Ray."""
    begun = begin(config)
    for task in list(missing_tasks(begun.plan, begun.stages)):
        write_shard(config, task)
    written = open_stages(config.out, begun.plan, config.stage_specs)
    for stage in config.stage_specs:
        write_manifest(config, begun.plan, stage, written[stage.name])


def _run(folder: Path, data: str, *stages: TrainConfig) -> Run:
    """A run with checkpoints of networks that are random, not trained."""
    small = tuple(override(stage, num_lanes=4, num_validation_images=4) for stage in stages)
    config = RunConfig(name="tiny", stages=small)
    run = create_run(folder, config, data, data_fingerprints(data, config), fresh=False)
    for stage in run.stages:
        stage.path.mkdir(exist_ok=True)
        stage.metrics.write_text(strict_json.dumps(LINE) + "\n")
        write_outcome(stage, None)
        save_checkpoint(stage.checkpoints, take_snapshot(create_state(stage.model, stage.config.optimizer, seed=0)), {})
    return open_run(folder)
