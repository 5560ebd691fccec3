"""Inputs that are made of targets in training, and of held-out images: by position or key, whoever makes them."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pipelines.ingest.degraded_inputs import degrade_batch, degrade_images
from pipelines.ingest.split_reader import SplitImages, load_split
from pipelines.photo_model import load_model
from pipelines.runs.residual_scales import measure, standard_deviation
from pipelines.runs.run_folder import create_run, data_fingerprints, open_run
from pipelines.runs.stage_run import check_input_noise
from pipelines.settings.inference import InferenceConfig
from pipelines.settings.presets import small_stage
from pipelines.settings.train import RunConfig, TrainConfig
from pipelines.training.validation import Validation
from pipelines.training.worker_group import Team
from pipelines.training.worker_loop import train_as_worker
from sr3core.batch import Batch
from sr3core.config import fingerprint, override
from sr3core.degradations.settings import DegradationConfig
from sr3core.errors import ConfigError
from sr3core.randomness import keyed_generator
from sr3core.training import Trainer
from tests.synthetic_shards import write_shards

STAGE = override(
    small_stage(8, 32, base_channels=8, num_steps=2, num_workers=0), degradation__order=1, num_validation_images=6
)
ALONE = Team(0, 1, torch.device("cpu"))


def batch_of(count: int) -> Batch:
    high = torch.rand(count, 3, 32, 32, generator=keyed_generator(0, "high")) * 2 - 1
    return Batch(torch.zeros(count, 3, 8, 8), high, tuple(range(count)))


def test_an_input_depends_on_seed_step_and_position_and_not_on_who_makes_it() -> None:
    batch = batch_of(8)
    whole = degrade_batch(batch, STAGE, 5).low
    assert whole is not None
    for part in batch.split(4):
        low = degrade_batch(part, STAGE, 5).low
        torch.testing.assert_close(low, whole[list(part.positions)], rtol=0, atol=1e-6)
    for other in (degrade_batch(batch, STAGE, 6), degrade_batch(batch, override(STAGE, seed=1), 5)):
        assert other.low is not None
        assert float((other.low - whole).abs().mean()) > 0.02
    assert degrade_batch(batch, override(STAGE, degradation__order=0), 5) is batch


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_shards(tmp_path_factory.mktemp("data"), "8-32", [48], validation=6)


def test_held_out_inputs_depend_on_their_keys(data: str) -> None:
    images = load_split(data, "8-32", "validation")
    all_of_them = degrade_images(images, STAGE.degradation)
    assert all_of_them.low.shape == images.low.shape
    assert (all_of_them.low != images.low).mean() > 0.5
    few = degrade_images(load_split(data, "8-32", "validation", rank=1, world_size=2), STAGE.degradation)
    np.testing.assert_array_equal(few.low, all_of_them.low[1::2])
    assert degrade_images(images, DegradationConfig()) is images


def test_a_stage_trains_validates_and_upscales_with_noise_on_its_input(data: str, tmp_path: Path) -> None:
    config = RunConfig(name="r", stages=(override(STAGE, model__unet__input_noise=0.4),))
    run = create_run(tmp_path / "run", config, data, data_fingerprints(data, config), fresh=False)
    (stage,) = run.stages
    validation = Validation(stage, Trainer(stage.model, stage.config.optimizer, 0), ALONE)
    assert isinstance(validation._mine, SplitImages)
    np.testing.assert_array_equal(
        validation._mine.low, degrade_images(load_split(data, "8-32", "validation"), STAGE.degradation).low
    )
    train_as_worker(stage, ALONE, lambda _: None)
    picture = np.random.default_rng(0).integers(0, 256, (9, 11, 3), dtype=np.uint8)
    made = [
        load_model(str(tmp_path / "run"), schedule="2", inference=InferenceConfig(input_noise=noise)).upscale(picture)
        for noise in (0.0, 0.3)
    ]
    assert made[0].shape == (36, 44, 3)
    assert (made[0] != made[1]).any()
    check_input_noise(open_run(tmp_path / "run").cascade(), InferenceConfig(input_noise=0.3))


def test_noise_that_no_stage_takes_is_refused(data: str, tmp_path: Path) -> None:
    config = RunConfig(name="r", stages=(STAGE,))
    run = create_run(tmp_path / "run", config, data, data_fingerprints(data, config), fresh=False)
    with pytest.raises(ConfigError, match="no stage was trained with noise on its input"):
        check_input_noise(run.cascade(), InferenceConfig(input_noise=0.3))


def test_residuals_are_measured_from_the_inputs_of_training(data: str) -> None:
    images = degrade_images(load_split(data, "8-32", "train"), STAGE.degradation)
    expected = standard_deviation(zip(images.low, images.high, strict=True))
    assert measure(data, "8-32", STAGE.degradation) == pytest.approx(expected, rel=2e-3)
    assert measure(data, "8-32") != pytest.approx(expected, rel=2e-3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"augmentation__blur_probability": 0.5}, "has no effect with degradation.order 1, which blurs too"),
        ({"degradation__order": 2}, "leaves 8 of 32 pixels for the second blur"),
    ],
)
def test_settings_that_do_not_go_together(changes: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        override(STAGE, **changes)


def test_a_stage_without_degradations_has_the_fingerprint_that_it_had() -> None:
    plain = override(STAGE, degradation__order=0)
    assert fingerprint(plain) == fingerprint(override(plain, degradation=DegradationConfig()))
    assert fingerprint(plain) != fingerprint(STAGE)
    assert isinstance(STAGE, TrainConfig)
