"""Shards -> batches: reading by offset, variations, and the same batches at every world size."""

import io
import json
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from pipelines.ingest.batches import SplitReader, augment, batches_from, load_split, open_training_split
from pipelines.prepare.preparation import prepare
from pipelines.settings.prepare import PrepareConfig
from pipelines.settings.presets import small_stage
from pipelines.shards.manifest import load_index
from pipelines.shards.records import Record
from sr3core.config import override
from sr3core.errors import DataError
from sr3core.hyperparameters import AugmentationConfig
from sr3core.images.pixels import to_float
from sr3core.images.resize import blur
from tests.preparing import prepared, prepared_classes


@pytest.fixture(scope="module")
def data(tmp_path_factory, photos, ray_session):
    """60 real photos in small shards."""
    return prepared(photos, tmp_path_factory.mktemp("data"), 60, "8-16", samples_per_shard=8)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory, photos, ray_session):
    """40 real photos in two of ImageNet's folders, as base shards."""
    return prepared_classes(photos, tmp_path_factory.mktemp("labelled"), 40, "base-16")


def base_stage(num_classes=2):
    return override(
        small_stage(None, 16, base_channels=8, num_steps=10, num_workers=1), model__unet__num_classes=num_classes
    )


def stage(**changes):
    return override(small_stage(8, 16, base_channels=8, num_steps=10, num_workers=1), **changes)


def record(high, low):
    return Record(key="k", high=high, low=low, label=None, meta={})


def test_the_global_batch_is_the_same_at_world_sizes_1_2_4_and_after_a_resume(data):
    config = stage()
    reader = open_training_split(data, config)
    whole = next(batches_from(reader, config, 5, 0, 1))
    by_position = {p: i for i, p in enumerate(whole.positions)}
    for world_size in (2, 4):
        for rank in range(world_size):
            part = next(batches_from(open_training_split(data, config), config, 5, rank, world_size))
            chosen = [by_position[position] for position in part.positions]
            torch.testing.assert_close(part.high, whole.high[chosen], rtol=0, atol=0)
            torch.testing.assert_close(part.low, whole.low[chosen], rtol=0, atol=0)
    walked = batches_from(reader, config, 3, 0, 1)
    next(walked), next(walked)
    assert next(walked).keys == whole.keys


def test_a_resume_reads_nothing_of_what_was_consumed(data, monkeypatch):
    config = stage(placement__prefetch_batches=1)
    reader = open_training_split(data, config)
    read = []
    original = SplitReader.read
    monkeypatch.setattr(SplitReader, "read", lambda self, *place: read.append(place) or original(self, *place))
    batches = batches_from(reader, config, 10**6, 0, 1)
    next(batches)
    batches.close()
    assert len(read) <= 2 * config.batch_size


def test_splits_are_disjoint_and_whole(data):
    parts = {split: set(load_split(data, "8-16", split).keys) for split in ("train", "validation", "test")}
    assert len(parts["train"]) + len(parts["validation"]) == 60
    assert not parts["train"] & parts["validation"]
    assert not parts["test"]
    assert len(load_split(data, "8-16", "validation", 3).keys) == 3


def test_what_is_read_is_what_prepare_promises(data):
    images = load_split(data, "8-16", "train")
    assert images.high.shape[1:] == (16, 16, 3)
    assert images.low.shape[1:] == (8, 8, 3)
    assert images.low.dtype == images.high.dtype == np.uint8
    assert np.abs(images.high.mean((1, 2, 3)) - images.low.mean((1, 2, 3))).max() < 3


def test_flips_mirror_both_images_half_of_the_time():
    high, low = np.arange(4 * 4 * 3, dtype=np.uint8).reshape(4, 4, 3), np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    high.setflags(write=False)  # as WebP records come
    flipped = 0
    for seed in range(400):
        new_low, new_high = augment(record(high, low), AugmentationConfig(), seed)
        mirrored = not np.array_equal(new_high, high)
        flipped += mirrored
        np.testing.assert_array_equal(new_high, high[:, ::-1] if mirrored else high)
        np.testing.assert_array_equal(new_low, low[:, ::-1] if mirrored else low)
    assert 150 < flipped < 250


def test_blur_touches_the_low_resolution_image_alone():
    generator = np.random.default_rng(0)
    high, low = (generator.integers(0, 256, (size, size, 3), dtype=np.uint8) for size in (16, 8))
    config = AugmentationConfig(flip=False, blur_probability=0.5, blur_sigma_max=2.0)
    blurred = 0
    for seed in range(200):
        new_low, new_high = augment(record(high, low), config, seed)
        np.testing.assert_array_equal(new_high, high)
        blurred += not np.array_equal(new_low, low)
        np.testing.assert_array_equal(augment(record(high, low), config, seed)[0], new_low)
    assert 60 < blurred < 140
    assert np.diff(blur(low, 2.0).astype(float), axis=0).std() < np.diff(low.astype(float), axis=0).std() / 3


def test_shards_of_another_stage_and_missing_ones_are_named(data):
    with pytest.raises(DataError, match="8-32 holds no manifest"):
        open_training_split(data, override(small_stage(8, 32, 8, 10, 1)))
    with pytest.raises(DataError, match="manifest"):
        load_split(data, "nothing", "train")


def test_batches_are_float_images_in_range(data):
    config = stage()
    batch = next(batches_from(open_training_split(data, config), config, 0, 0, 1))
    assert batch.high.shape == (16, 3, 16, 16)
    assert float(batch.high.min()) >= -1
    assert float(batch.high.max()) <= 1
    assert batch.positions == tuple(range(16))
    assert to_float(np.zeros((1, 2, 2, 3), np.uint8)).min() == -1


def test_base_shards_give_images_and_their_classes_alike_at_every_world_size(labelled):
    config = base_stage()
    reader = open_training_split(labelled, config)
    whole = next(batches_from(reader, config, 3, 0, 1))
    assert whole.low is None
    assert whole.high.shape == (16, 3, 16, 16)
    assert whole.classes.dtype == torch.int64
    folders = {
        key: name.split("/")[-2]
        for shard in reader.shards
        for key, name in zip(
            load_index(reader.directory, shard.name).keys, load_index(reader.directory, shard.name).names, strict=True
        )
    }
    wanted = [["n01440764", "n01443537"].index(folders[key]) for key in whole.keys]
    assert whole.classes.tolist() == wanted
    assert set(wanted) == {0, 1}
    for rank in range(4):
        part = next(batches_from(reader, config, 3, rank, 4))
        chosen = [whole.positions.index(position) for position in part.positions]
        torch.testing.assert_close(part.high, whole.high[chosen], rtol=0, atol=0)
        torch.testing.assert_close(part.classes, whole.classes[chosen])
    assert next(batches_from(reader, base_stage(None), 3, 0, 1)).classes is None


def test_a_base_models_images_are_flipped_and_nothing_else():
    high = np.arange(4 * 4 * 3, dtype=np.uint8).reshape(4, 4, 3)
    varied = [augment(record(high, None), AugmentationConfig(), seed) for seed in range(400)]
    assert all(low is None for low, _ in varied)
    mirrored = [bool((image == high[:, ::-1]).all()) for _, image in varied]
    assert all(flipped or bool((image == high).all()) for flipped, (_, image) in zip(mirrored, varied, strict=True))
    assert 150 < sum(mirrored) < 250


def test_classes_that_the_data_lack_or_the_model_does_not_have_are_told_before_training(
    labelled, tmp_path, ray_session
):
    with pytest.raises(
        DataError, match=r"holds classes up to 1, stage base-16 takes 0 to 0: set unet.num_classes to 2"
    ):
        open_training_split(labelled, base_stage(1))
    open_training_split(labelled, base_stage(1000))
    with zipfile.ZipFile(tmp_path / "some.zip", "w") as archive:
        for number in range(12):
            buffer = io.BytesIO()
            pixels = np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(buffer, "PNG")
            archive.writestr(f"{number:02d}.png", buffer.getvalue())
        labels = [[f"{number:02d}.png", number] for number in range(9)]
        archive.writestr("dataset.json", json.dumps({"labels": labels}))
    for source, out in ((tmp_path / "some.zip", "some"), (tmp_path / "plain", "none")):
        if out == "none":
            zipfile.ZipFile(tmp_path / "some.zip").extractall(source)
            (source / "dataset.json").unlink()
        prepare(PrepareConfig(source=str(source), out=str(tmp_path / out), stages=("base-16",), validation_fraction=0))
    with pytest.raises(DataError, match="holds 3 images without a class, stage base-16 wants 9: prepare a source"):
        open_training_split(str(tmp_path / "some"), base_stage(9))
    with pytest.raises(DataError, match="holds no classes, stage base-16 wants 2"):
        open_training_split(str(tmp_path / "none"), base_stage(2))
    open_training_split(str(tmp_path / "none"), base_stage(None))
