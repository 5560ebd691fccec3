"""Batches: the same ones at every world size and after a resume, in the form that training takes."""

import itertools

import numpy as np
import torch

from pipelines.ingest.batches import batches_from
from pipelines.ingest.split_reader import SplitReader, open_training_split
from pipelines.settings.presets import small_stage
from pipelines.shards.manifest import load_index
from sr3core.config import override
from sr3core.images.pixels import to_float


def stage(**changes):
    return override(small_stage(8, 16, base_channels=8, num_steps=10, num_workers=1), **changes)


def base_stage(num_classes: int | None = 2):
    return override(
        small_stage(None, 16, base_channels=8, num_steps=10, num_workers=1), model__unet__num_classes=num_classes
    )


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
    _, _, third = itertools.islice(walked, 3)
    assert third.keys == whole.keys


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
