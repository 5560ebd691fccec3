"""A preparation, and a worker that trains until it is ended, joined to a cluster: `python … ADDRESS PHOTOS FOLDER`."""

import sys
from pathlib import Path

import ray
import torch

from pipelines.runs.run_folder import create_run, data_fingerprints
from pipelines.settings.presets import small_stage
from pipelines.settings.train import RunConfig
from pipelines.training.worker_group import Team
from pipelines.training.worker_loop import train_as_worker
from sr3core.config import override
from tests.preparing import prepared

address, photos, folder = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
torch.set_num_threads(1)
ray.init(address, log_to_driver=False)
shards = prepared(photos, folder, 12, "8-16")
stage = override(
    small_stage(8, 16, base_channels=8, num_steps=1_000_000, num_workers=0),
    **{"log_every": 5, "checkpoint_every": 50, "batch_size": 8},
)
config = RunConfig(name="watched", stages=(stage,))
run = create_run(folder / "watched", config, shards, data_fingerprints(shards, config), fresh=False)
train_as_worker(run.stages[0], Team(0, 1, torch.device("cpu")), lambda metrics: None)
