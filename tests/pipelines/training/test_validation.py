"""Held-out images: each worker reads its own share of them."""

import pytest
import torch

from pipelines.ingest.record_reader import RecordReader
from pipelines.runs.run_folder import create_run, data_fingerprints
from pipelines.settings.presets import small_stage
from pipelines.settings.train import RunConfig
from pipelines.training.validation import Validation
from pipelines.training.worker_group import Team
from sr3core.config import override
from sr3core.errors import DataError
from sr3core.training import Trainer, create_state
from tests.synthetic_shards import write_shards


def validation(tmp_path, data, rank, world_size):
    stage = override(small_stage(8, 16, 8, 10, 1), num_validation_images=10)
    config = RunConfig(name="any", stages=(stage,))
    run = create_run(tmp_path / "run", config, data, data_fingerprints(data, config), fresh=True)
    trainer = Trainer(stage.model, stage.optimizer, stage.seed)
    return Validation(run.stages[0], trainer, Team(rank, world_size, torch.device("cpu")))


def test_a_worker_reads_and_keeps_its_share(tmp_path, monkeypatch):
    data = write_shards(tmp_path / "data", "8-16", [8], validation=13)
    read = []
    original = RecordReader.read
    monkeypatch.setattr(RecordReader, "read", lambda self, *place: read.append(place[1]) or original(self, *place))
    held = validation(tmp_path, data, 1, 4)
    assert read == [1, 5, 9]
    assert len(held._mine.keys) == 3


def test_the_variance_that_reaches_each_level_is_told(tmp_path):
    data = write_shards(tmp_path / "data", "8-16", [8], validation=4)
    held = validation(tmp_path, data, 0, 1)
    stage = small_stage(8, 16, 8, 10, 1)
    found = held(create_state(stage.model, stage.optimizer, seed=0))
    told = {name: value for name, value in found.items() if name.startswith("variance_")}
    assert list(told) == ["variance_16x16", "variance_8x8", "variance_4x4", "variance_middle"]
    assert all(value > 0 for value in told.values())


def test_a_stage_without_held_out_images_is_refused(tmp_path):
    data = write_shards(tmp_path / "data", "8-16", [8])
    with pytest.raises(DataError, match="holds no validation images"):
        validation(tmp_path, data, 0, 1)
