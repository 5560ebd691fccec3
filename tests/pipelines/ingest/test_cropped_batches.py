"""Crops in ingest: cut from what training on whole images would see, wherever and however they are made."""

import itertools

import pytest
import torch

from pipelines.ingest.batches import batches_from
from pipelines.ingest.pixel_batch import PixelBatch
from pipelines.ingest.split_reader import open_training_split
from pipelines.settings.presets import small_stage
from sr3core.config import override
from sr3core.errors import ConfigError
from tests.synthetic_shards import write_shards

WHOLE = override(
    small_stage(8, 32, base_channels=8, num_steps=10, num_workers=1),
    augmentation__quarter_turns=True,
    augmentation__blur_probability=0.5,
)
CROPS = override(WHOLE, model__unet__image_size=16)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_shards(tmp_path_factory.mktemp("data"), "8-32", [40, 24], validation=4)


def pixels_at(data: str, config, step: int, rank: int = 0, world_size: int = 1) -> PixelBatch:
    return next(batches_from(open_training_split(data, config), config, step, rank, world_size))


@pytest.mark.parametrize("processes", [0, 2])
def test_a_crop_is_cut_from_what_whole_images_would_be_after_flips_and_turns(data, processes):
    whole = pixels_at(data, WHOLE, 4).to("cpu")
    crops = pixels_at(data, override(CROPS, placement__decoding_processes=processes), 4).to("cpu")
    assert (crops.keys, crops.positions) == (whole.keys, whole.positions)
    assert crops.low is not None
    assert whole.low is not None
    assert torch.equal(crops.low, whole.low)
    for crop, image, (top, left) in zip(crops.high, whole.high, crops.corners, strict=True):
        assert torch.equal(crop, image[:, top : top + 16, left : left + 16])
    assert len(set(crops.corners)) > 8
    assert all(place % 4 == 0 for corner in crops.corners for place in corner)


def test_workers_and_resumed_trainings_see_the_same_crops(data):
    whole = pixels_at(data, CROPS, 5)
    found = {}
    for rank in range(2):
        part = pixels_at(data, CROPS, 5, rank, 2)
        found |= dict(zip(part.positions, zip(part.corners, part.high, strict=True), strict=True))
    assert found.keys() == set(whole.positions)
    for position, corner, crop in zip(whole.positions, whole.corners, whole.high, strict=True):
        assert found[position][0] == corner
        assert torch.equal(found[position][1], crop)
    *_, third = itertools.islice(batches_from(open_training_split(data, CROPS), CROPS, 3, 0, 1), 3)
    assert third.corners == whole.corners
    assert torch.equal(third.high, whole.high)


def test_a_visit_of_another_step_or_seed_has_other_places(data):
    places = {pixels_at(data, config, step).corners for config in (CROPS, override(CROPS, seed=1)) for step in (0, 1)}
    assert len(places) == 4


def test_only_the_crop_is_sent_to_the_device(data):
    whole, crops = pixels_at(data, WHOLE, 0), pixels_at(data, CROPS, 0)
    assert crops.high.nbytes == whole.high.nbytes / 4
    assert crops.low is not None
    assert whole.low is not None
    assert crops.low.nbytes == whole.low.nbytes
    assert crops.turns is None, "they have been turned"


def test_inputs_cannot_be_made_of_whole_targets_that_are_not_there():
    with pytest.raises(ConfigError, match="makes inputs of whole targets, but the stage trains on crops"):
        override(CROPS, augmentation__blur_probability=0.0, degradation__order=1)
