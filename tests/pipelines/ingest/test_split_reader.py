"""Reading a split: which records it holds, and what is reported about one that does not fit the model."""

import io
import json
import shutil
import tracemalloc
import zipfile

import numpy as np
import pytest
from PIL import Image

from pipelines.ingest.split_reader import SplitReader, check_shards, load_split, open_training_split
from pipelines.prepare.preparation import prepare
from pipelines.settings.prepare import PrepareConfig
from pipelines.settings.presets import small_stage
from pipelines.shards.manifest import load_index
from sr3core.config import override
from sr3core.errors import DataError
from tests.preparing import prepared
from tests.synthetic_shards import write_shards


def base_stage(num_classes: int | None):
    return override(
        small_stage(None, 16, base_channels=8, num_steps=10, num_workers=1), model__unet__num_classes=num_classes
    )


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


def test_a_worker_reads_its_share_of_the_first_images(synthetic):
    whole = load_split(synthetic, "8-16", "train", 21)
    for world_size in (1, 2, 4):
        parts = [load_split(synthetic, "8-16", "train", 21, rank, world_size) for rank in range(world_size)]
        for rank, part in enumerate(parts):
            assert part.keys == whole.keys[rank::world_size]
            np.testing.assert_array_equal(part.high, whole.high[rank::world_size])
            np.testing.assert_array_equal(part.low, whole.low[rank::world_size])


def test_a_whole_split_is_held_once(tmp_path):
    data = write_shards(tmp_path, "base-128", [40])
    load_split(data, "base-128", "train", 1)
    tracemalloc.start()
    try:
        images = load_split(data, "base-128", "train")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert images.high.nbytes == 40 * 3 * 128**2
    assert peak < 1.5 * images.high.nbytes


def test_shards_of_another_stage_and_missing_ones_are_named(data):
    with pytest.raises(DataError, match="8-32 holds no manifest"):
        open_training_split(data, override(small_stage(8, 32, 8, 10, 1)))
    with pytest.raises(DataError, match="manifest"):
        load_split(data, "nothing", "train")


def test_classes_that_do_not_fit_the_model_are_reported_before_training(labelled, tmp_path, ray_session):
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
    with pytest.raises(DataError, match="holds 3 images without a class, stage base-16 needs 9: prepare a source"):
        open_training_split(str(tmp_path / "some"), base_stage(9))
    with pytest.raises(DataError, match="holds no classes, stage base-16 needs 2"):
        open_training_split(str(tmp_path / "none"), base_stage(2))
    open_training_split(str(tmp_path / "none"), base_stage(None))


def test_missing_and_truncated_shards_are_named(data, tmp_path):
    shutil.copytree(data, tmp_path / "data")
    stage = small_stage(8, 16, base_channels=8, num_steps=10, num_workers=1)
    reader = open_training_split(str(tmp_path / "data"), stage)
    check_shards(reader)
    (tmp_path / "data" / "8-16" / "train-000001.tar").unlink()
    (tmp_path / "data" / "8-16" / "train-000003.tar").write_bytes(b"short")
    with pytest.raises(DataError, match=r"train-000001.tar, train-000003.tar missing or not of the size.*sr3 verify"):
        check_shards(reader)


def test_the_first_crops_are_of_as_many_photos_as_can_be_and_all_are_there(photos, tmp_path, ray_session):
    data = prepared(photos, tmp_path, 20, "8-16", crop="native", crops_per_image=4, samples_per_shard=16)
    shards = SplitReader(data, "8-16", "train").shards
    assert len(shards) > 1
    photo_of = {}
    for shard in shards:
        index = load_index(f"{data}/8-16", shard.name)
        photo_of |= dict(zip(index.keys, index.names, strict=True))
    keys = load_split(data, "8-16", "train").keys
    assert sorted(keys) == sorted(photo_of)
    num_photos = len(set(photo_of.values()))
    for start in range(0, len(keys), num_photos):
        assert len({photo_of[key] for key in keys[start : start + num_photos]}) == num_photos
    assert load_split(data, "8-16", "train", 7).keys == keys[:7]
    assert load_split(data, "8-16", "train", 7, 1, 2).keys == keys[1:7:2]
