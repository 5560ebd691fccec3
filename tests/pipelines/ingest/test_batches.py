"""Batches: the same ones at every world size, after a resume and with any number of decoding processes."""

import hashlib
import itertools

import pytest
import torch

from pipelines.ingest.batches import batches_from
from pipelines.ingest.record_reader import RecordReader
from pipelines.ingest.split_reader import open_training_split
from pipelines.settings.presets import small_stage
from pipelines.shards.manifest import load_index
from sr3core.config import override
from tests.synthetic_shards import write_shards


def stage(**changes):
    return override(small_stage(8, 16, base_channels=8, num_steps=10, num_workers=1), **changes)


def base_stage(num_classes: int | None = 2):
    return override(
        small_stage(None, 16, base_channels=8, num_steps=10, num_workers=1), model__unet__num_classes=num_classes
    )


def batch_at(data, config, step, rank=0, world_size=1):
    """One batch on the CPU."""
    return next(batches_from(open_training_split(data, config), config, step, rank, world_size)).to("cpu")


def test_the_global_batch_is_the_same_at_world_sizes_1_2_4_and_after_a_resume(synthetic):
    config = stage()
    whole = batch_at(synthetic, config, 5)
    by_position = {p: i for i, p in enumerate(whole.positions)}
    for world_size in (2, 4):
        for rank in range(world_size):
            part = batch_at(synthetic, config, 5, rank, world_size)
            chosen = [by_position[position] for position in part.positions]
            torch.testing.assert_close(part.high, whole.high[chosen], rtol=0, atol=0)
            torch.testing.assert_close(part.low, whole.low[chosen], rtol=0, atol=0)
    walked = batches_from(open_training_split(synthetic, config), config, 3, 0, 1)
    _, _, third = itertools.islice(walked, 3)
    assert third.keys == whole.keys


RECORDED = {0.0: "b586b40811287c33", 0.5: "e6177730afb17a4c"}  # with images made floats, flipped and blurred one by one


@pytest.mark.parametrize("blur", RECORDED)
@pytest.mark.parametrize("processes", [0, 3])
def test_bytes_that_become_floats_on_the_device_give_the_bits_of_before(synthetic, blur, processes):
    config = stage(augmentation__blur_probability=blur, placement__decoding_processes=processes)
    digest = hashlib.sha256()
    batches = batches_from(open_training_split(synthetic, config), config, 3, 0, 2)
    for batch in itertools.islice(batches, 3):
        batch = batch.to("cpu")
        digest.update(batch.low.numpy().tobytes() + batch.high.numpy().tobytes())
        digest.update(repr((batch.keys, batch.positions)).encode())
    assert digest.hexdigest()[:16] == RECORDED[blur]


@pytest.mark.parametrize("processes", [0, 3])
def test_quarter_turns_turn_both_images_and_change_nothing_else(synthetic, processes):
    blurred = stage(augmentation__blur_probability=0.5, placement__decoding_processes=processes)
    plain = batch_at(synthetic, blurred, 4)
    turned = batch_at(synthetic, override(blurred, augmentation__quarter_turns=True), 4)
    assert turned.keys == plain.keys
    found = []
    for number in range(len(plain.keys)):
        fits = [k for k in range(4) if torch.equal(turned.high[number], plain.high[number].rot90(k, (1, 2)))]
        assert len(fits) == 1
        assert torch.equal(turned.low[number], plain.low[number].rot90(fits[0], (1, 2)))
        found += fits
    assert set(found) == {0, 1, 2, 3}


def test_a_resume_reads_nothing_of_what_was_consumed(synthetic, monkeypatch):
    config = stage(placement__prefetch_batches=1)
    read = []
    original = RecordReader.read
    monkeypatch.setattr(RecordReader, "read", lambda self, *place: read.append(place) or original(self, *place))
    batches = batches_from(open_training_split(synthetic, config), config, 10**6, 0, 1)
    next(batches)
    batches.close()
    assert len(read) <= 2 * config.batch_size


def test_batches_are_bytes_until_they_are_on_the_device(synthetic):
    config = stage()
    raw = next(batches_from(open_training_split(synthetic, config), config, 0, 0, 1))
    assert raw.high.dtype == raw.low.dtype == torch.uint8
    batch = raw.to("cpu")
    assert batch.high.shape == (16, 3, 16, 16)
    assert batch.low.shape == (16, 3, 8, 8)
    assert float(batch.high.min()) == -1
    assert float(batch.high.max()) == 1
    assert batch.positions == tuple(range(16))


def test_base_shards_give_images_and_their_classes_alike_at_every_world_size(tmp_path):
    data = write_shards(tmp_path, "base-16", [16, 16], num_classes=2)
    config = base_stage()
    whole = batch_at(data, config, 3)
    assert whole.low is None
    assert whole.high.shape == (16, 3, 16, 16)
    assert whole.classes.dtype == torch.int64
    split = open_training_split(data, config)
    indices = [load_index(split.directory, shard.name) for shard in split.shards]
    labels = {key: label for index in indices for key, label in zip(index.keys, index.labels, strict=True)}
    assert whole.classes.tolist() == [labels[key] for key in whole.keys]
    assert set(whole.classes.tolist()) == {0, 1}
    for rank in range(4):
        part = batch_at(data, config, 3, rank, 4)
        chosen = [whole.positions.index(position) for position in part.positions]
        torch.testing.assert_close(part.high, whole.high[chosen], rtol=0, atol=0)
        torch.testing.assert_close(part.classes, whole.classes[chosen])
    assert batch_at(data, base_stage(None), 3).classes is None
