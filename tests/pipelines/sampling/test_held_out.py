"""Held-out images travel by their places: what an actor makes of them, and what it is sent."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.ingest.record_reader import RecordReader
from pipelines.ingest.split_reader import find_split, load_split
from pipelines.runs.run_folder import create_run, data_fingerprints
from pipelines.sampling.held_out import SplitUpscaler
from pipelines.sampling.held_out_images import PreparedImages, Task
from pipelines.settings.evaluate import EvaluateConfig
from pipelines.settings.presets import regression_of, small_stage
from pipelines.settings.train import RunConfig
from sr3core.checkpoint import save_checkpoint, take_snapshot
from sr3core.config import override, to_dict
from sr3core.degradations.settings import DegradationConfig
from sr3core.training import create_state
from tests.synthetic_shards import write_shards

STAGE = small_stage(16, 64, base_channels=8, num_steps=10, num_workers=1)
RANDOM = DegradationConfig(order=2)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_shards(tmp_path_factory.mktemp("data"), "16-64", [5], validation=7))


def held_out(data: str, degradation: DegradationConfig = STAGE.degradation) -> PreparedImages:
    return PreparedImages(find_split(data, "16-64", "validation"), degradation)


@pytest.mark.parametrize("degradation", [STAGE.degradation, RANDOM], ids=["of the shards", "random"])
def test_any_part_of_them_is_that_part_of_the_whole(data: str, degradation: DegradationConfig) -> None:
    images, whole = held_out(data, degradation), load_split(data, "16-64", "validation")
    assert images.keys == whole.keys
    loaded = images.load(RecordReader)
    np.testing.assert_array_equal(loaded.high, whole.high)
    assert (loaded.low == whole.low).all() == (degradation.order == 0)
    for part in (slice(0, 3), slice(3, 7), slice(6, None)):
        some = images.part(part).load(RecordReader)
        assert some.keys == images.part(part).keys == whole.keys[part]
        np.testing.assert_array_equal(some.high, loaded.high[part])
        np.testing.assert_array_equal(some.low, loaded.low[part])
        assert some.labels == whole.labels[part]


def test_an_actor_is_sent_places_and_no_pixels(data: str) -> None:
    pixels = load_split(data, "16-64", "validation").high.nbytes
    task = pickle.dumps(Task(held_out(data)))
    assert len(task) < pixels
    larger = pickle.dumps(Task(held_out(data).part(slice(0, 1))))
    assert (len(task) - len(larger)) / 6 < 200, "bytes an image"


def test_an_actor_writes_inputs_originals_and_outputs_whatever_the_parts(data: str, tmp_path: Path) -> None:
    config = RunConfig(name="tiny", stages=(STAGE, regression_of(STAGE)))
    run = create_run(tmp_path / "run", config, data, data_fingerprints(data, config), fresh=False)
    for stage in run.stages:
        state = create_state(stage.config.model, stage.config.optimizer, 0)
        save_checkpoint(stage.checkpoints, take_snapshot(state), {})
    wanted, images = override(EvaluateConfig(), split="validation", schedule="2"), held_out(data)
    upscaler = SplitUpscaler(str(run.path), to_dict(wanted), str(tmp_path / "samples"), "cpu")
    for part in (slice(0, 4), slice(4, None)):
        upscaler.work(Task(images.part(part)))
    upscaler.work(Task(images.part(slice(0, 2)), repeat=1))
    made = {path.name: sorted(path.glob("*.png")) for path in (tmp_path / "samples").iterdir()}
    assert {name: len(files) for name, files in made.items()} == {
        **dict.fromkeys(("low", "reference", "nearest", "bicubic", "16-64-regression", "sr3"), 7),
        "sr3-1": 2,
    }
    whole = load_split(data, "16-64", "validation")
    for name, pictures in (("low", whole.low), ("reference", whole.high)):
        for key, picture in zip(whole.keys, pictures, strict=True):
            np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "samples" / name / f"{key}.png")), picture)
