"""A tiny run folder with a checkpoint of a small network, held-out images, and the configuration of a tiny search."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipelines.ingest import split_reader
from pipelines.runs.run_folder import StageRun, create_run
from pipelines.settings.train import RunConfig, TrainConfig
from sr3core.checkpoint import save_checkpoint, take_snapshot
from sr3core.hyperparameters import ModelConfig, NoiseScheduleConfig, OptimizerConfig, UNetConfig
from sr3core.randomness import keyed_generator
from sr3core.training import create_state
from tune.search.settings import SearchConfig

STAGE = "4-16"


@dataclass(frozen=True)
class TinyRun:
    """A run folder whose network is random, and its stage."""

    path: str
    stage: StageRun


def tiny_model() -> ModelConfig:
    """A network that takes a millisecond a step."""
    unet = UNetConfig(image_size=16, base_channels=8, channel_multipliers=(1, 2), num_res_blocks=1, attention_sizes=())
    return ModelConfig(low_size=4, high_size=16, unet=unet, noise_schedule=NoiseScheduleConfig(num_steps=2000))


def write_run(path: Path, with_checkpoint: bool = True, kind: Any = "sr3") -> TinyRun:
    """Write a run folder."""
    config = TrainConfig(name=STAGE, model=replace(tiny_model(), kind=kind), batch_size=64, num_steps=10)
    run = create_run(path, RunConfig(name="tiny", stages=(config,)), "data", {STAGE: "0"}, fresh=False)
    stage = run.stage(STAGE)
    if with_checkpoint:
        state = create_state(config.model, OptimizerConfig(), seed=0)
        with torch.no_grad():  # the last layer starts at zero, which would make all schedules much alike
            for network in (state.model, state.ema or state.model):
                torch.nn.init.normal_(network.conv_out.weight, std=0.05, generator=keyed_generator(0, "test"))
        save_checkpoint(stage.checkpoints, take_snapshot(state), {})
    return TinyRun(str(path), stage)


def make_images(count: int, seed: int) -> split_reader.SplitImages:
    """Smooth random images and their quarter-size versions."""
    generator = np.random.default_rng(seed)
    low = generator.integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    high = low.repeat(4, axis=1).repeat(4, axis=2)
    return split_reader.SplitImages(tuple(f"{seed}-{i}" for i in range(count)), low, high)


def fake_load_split(
    data: str, stage: str, split: str, limit: int | None = None, rank: int = 0, world_size: int = 1
) -> split_reader.SplitImages:
    """80 images a split."""
    every = make_images(min(limit or 80, 80), {"train": 0, "validation": 1, "test": 2}[split])
    part = slice(rank, None, world_size)
    return split_reader.SplitImages(every.keys[part], every.low[part], every.high[part])


def make_config(**changes: Any) -> SearchConfig:
    """Ten trials of four steps on 16 images, one after another in one process, except for the given changes."""
    values = {
        "stage": "4-16",
        "num_steps": 4,
        "num_trials": 10,
        "num_images": 16,
        "features": "seeded",
        "num_concurrent": 1,
        **changes,
    }
    return SearchConfig(**values)
