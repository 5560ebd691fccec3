"""Tiny runs of fields, trained in the process of a test."""

from dataclasses import replace
from pathlib import Path

import torch

from pipelines.runs.field_samples import fitted_to_data
from pipelines.runs.run_folder import Run, create_run, data_fingerprints, open_run
from pipelines.settings.presets import preset
from pipelines.settings.train import RunConfig
from pipelines.training.frozen_mean import freeze_mean
from pipelines.training.mean_scale import fix_scale
from pipelines.training.worker_group import Team
from pipelines.training.worker_loop import train_as_worker
from sr3core.config import override


def shallow(data: str, **changes) -> RunConfig:
    run = fitted_to_data(preset("fields"), data)
    small = {
        "num_steps": 4,
        "model__unet__base_channels": 8,
        "validation_every": 2,
        "checkpoint_every": 2,
        "num_validation_images": 4,
        "placement__trackers": (),
    }
    return replace(run, stages=tuple(override(stage, **(small | changes)) for stage in run.stages))


def make_run(place: Path, data: str, **changes) -> Run:
    wanted = shallow(data, **changes)
    return create_run(place, wanted, data, data_fingerprints(data, wanted), fresh=False)


def train(run: Run, name: str) -> None:
    train_as_worker(run.stage(name), Team(0, 1, torch.device("cpu")), lambda _: None)


def trained(place: Path, data: str, **changes) -> Run:
    run = make_run(place, data, **changes)
    train(run, "fields-regression")
    begin(run)
    train(open_run(place), "fields")
    return open_run(place)


def begin(run: Run) -> None:
    """What comes between the regression's last step and the first one of the stage that starts from it."""
    freeze_mean(run.stage("fields"), run.stage("fields-regression"))
    fix_scale(run.stage("fields"))
