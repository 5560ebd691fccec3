"""Training on several preparations: what is read from which, and what cannot be mixed."""

import itertools
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cluster.cli import main
from cluster.exits import DONE, FAILURE, USAGE_ERROR
from pipelines.ingest.batches import batches_from, order_of
from pipelines.ingest.cache_plan import plan_cache
from pipelines.ingest.split_reader import SplitReader, load_split, open_training_split
from pipelines.report.status import status_of
from pipelines.runs.run_data import with_data
from pipelines.runs.run_folder import create_run, data_fingerprints, open_run
from pipelines.settings.mixtures import read_data
from pipelines.settings.presets import small_stage
from pipelines.settings.train import RunConfig
from pipelines.shards.manifest import load_manifest, save_manifest
from pipelines.training.validation import Validation
from pipelines.training.worker_group import Team
from sr3core.config import override
from sr3core.errors import ConfigError, DataError
from sr3core.training import Trainer, create_state
from tests.synthetic_shards import write_shards

STAGE = small_stage(8, 16, base_channels=8, num_steps=10, num_workers=1)
CONFIG = RunConfig(name="tiny", stages=(STAGE,))


def prepare(folder: Path, sizes: list[int], validation: int, fingerprint: str, **changes) -> str:
    """A preparation whose keys are those of no other."""
    stage = "base-16" if "num_classes" in changes else "8-16"
    write_shards(folder, stage, sizes, validation=validation, **changes)
    save_manifest(str(folder / stage), replace(load_manifest(str(folder / stage)), fingerprint=fingerprint))
    return str(folder)


@pytest.fixture
def faces(tmp_path: Path) -> str:
    return prepare(tmp_path / "my faces", [30, 34], 9, "a")


@pytest.fixture
def scenes(tmp_path: Path) -> str:
    return prepare(tmp_path / "scenes", [16, 16], 3, "b")


def places(data: str, step: int, rank: int = 0, world_size: int = 1) -> list:
    split = open_training_split(data, STAGE)
    return order_of(split, STAGE).batch(step, rank, world_size)


def test_batches_hold_the_shares_and_are_the_same_at_every_world_size_and_after_a_resume(faces, scenes) -> None:
    data = read_data([f"{faces}=0.7", f"{scenes}=0.3"])
    split = open_training_split(data, STAGE)
    owners = [split.owners[place.shard] for step in range(10) for place in places(data, step)]
    assert (owners.count(0), owners.count(1)) == (112, 48)
    config = override(STAGE, placement__decoding_processes=2)
    whole = list(itertools.islice(batches_from(split, config, 0, 0, 1), 6))
    again = next(batches_from(split, config, 5, 0, 1))
    assert again.keys == whole[5].keys
    for rank in range(2):
        part = next(batches_from(split, STAGE, 5, rank, 2))
        chosen = [whole[5].positions.index(position) for position in part.positions]
        assert torch.equal(part.high, whole[5].high[chosen])
        assert [whole[5].keys[number] for number in chosen] == list(part.keys)


def test_each_sample_is_read_from_its_own_preparation(faces, tmp_path) -> None:
    """Shards of both have the same names; the pictures of one are black."""
    black = prepare(tmp_path / "black", [32], 3, "b", images=[np.zeros((16, 16, 3), np.uint8)])
    data = read_data([f"{faces}=1", f"{black}=1"])
    split = open_training_split(data, STAGE)
    batch = next(batches_from(split, STAGE, 0, 0, 1))
    owners = [split.owners[place.shard] for place in order_of(split, STAGE).batch(0)]
    assert [int(not image.any()) for image in batch.high] == owners
    assert owners.count(1) == 8


def test_without_weights_they_are_mixed_by_their_sizes(faces, scenes) -> None:
    data = read_data([faces, scenes])
    assert [part.share for part in SplitReader(data, "8-16", "train").stages] == [2, 1]
    assert data_fingerprints(data, CONFIG) == {"8-16": "2/3 of a + 1/3 of b"}
    weighted = read_data([f"{faces}=2", f"{scenes}=1"])
    assert data_fingerprints(weighted, CONFIG) == data_fingerprints(data, CONFIG)


def test_held_out_images_alternate_by_the_shares_until_one_has_no_more(faces, scenes) -> None:
    data = read_data([f"{faces}=0.5", f"{scenes}=0.5"])
    assert load_split(data, "8-16", "validation", 6).parts == (0, 1, 0, 1, 0, 1)
    whole = load_split(data, "8-16", "validation")
    assert whole.parts == (0, 1, 0, 1, 0, 1, *[0] * 6)
    assert load_split(data, "8-16", "validation", None, 1, 3).keys == whole.keys[1::3]


def test_the_held_out_loss_is_that_of_all_and_of_each(faces, scenes, tmp_path) -> None:
    data = read_data([f"{faces}=0.75", f"{scenes}=0.25"])
    run = create_run(tmp_path / "run", CONFIG, data, data_fingerprints(data, CONFIG), fresh=False)
    trainer = Trainer(STAGE.model, STAGE.optimizer, STAGE.seed)
    state = create_state(STAGE.model, STAGE.optimizer, STAGE.seed)
    losses = Validation(run.stages[0], trainer, Team(0, 1, torch.device("cpu")))(state)
    assert losses["loss"] == pytest.approx((9 * losses["loss_on_my faces"] + 3 * losses["loss_on_scenes"]) / 12)
    assert losses["loss_on_my faces"] != losses["loss_on_scenes"]
    alone = create_run(tmp_path / "alone", CONFIG, faces, data_fingerprints(faces, CONFIG), fresh=False)
    assert not [
        name for name in Validation(alone.stages[0], trainer, Team(0, 1, torch.device("cpu")))(state) if "_on_" in name
    ]


def test_the_cache_has_to_hold_what_is_read_of_both(faces, scenes) -> None:
    def wanted(data: str) -> int:
        split = open_training_split(data, STAGE)
        return plan_cache(STAGE, order_of(split, STAGE), split.shards_of, 0, 1, 0).wanted_bytes

    assert wanted(read_data([faces, scenes])) == wanted(faces) + wanted(scenes)


def test_a_run_remembers_its_mixture_and_follows_it_to_other_places(faces, scenes, tmp_path) -> None:
    data = read_data([f"{faces}=0.7", f"{scenes}=0.3"])
    run = create_run(tmp_path / "run", CONFIG, data, data_fingerprints(data, CONFIG), fresh=False)
    assert open_run(run.path).data == data
    assert status_of(str(run.path))["data"] == f"'{faces}=0.7' {scenes}=0.3"
    moved = shutil.move(scenes, tmp_path / "elsewhere")
    assert with_data(run, read_data([faces, str(moved)])).data == read_data([f"{faces}=0.7", f"{moved}=0.3"])
    with pytest.raises(DataError, match=r"'7/10 of a \+ 3/10 of b' -> '1/2 of a \+ 1/2 of b'"):
        with_data(run, read_data([f"{faces}=1", f"{moved}=1"]))
    with pytest.raises(DataError, match=r"'7/10 of a \+ 3/10 of b' -> '7/10 of b \+ 3/10 of a'"):
        with_data(run, read_data([str(moved), faces]))
    with pytest.raises(DataError, match="-> 'a'"):
        with_data(run, faces)
    other = read_data([f"{faces}=0.6", f"{moved}=0.4"])
    (run.stages[0].checkpoints / "step-1").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"holds a run with a different configuration: data.8-16"):
        create_run(run.path, CONFIG, other, data_fingerprints(other, CONFIG), fresh=False)


def test_the_command_takes_a_mixture_and_names_what_cannot_be_mixed(faces, scenes, tmp_path, capsys) -> None:
    write_shards(tmp_path / "other", "16-64", [40], validation=4)
    write_shards(tmp_path / "more", "16-64", [40], validation=4)
    command = ["train", "small-16-64", "--out", str(tmp_path / "run"), "--dry-run", "--data"]
    assert main([*command, f"{tmp_path}/other=0.7", f"{tmp_path}/more=0.3"]) == DONE
    assert main([*command, f"{tmp_path}/other=0.7", f"{scenes}=0.3"]) == FAILURE
    assert f"{scenes}/16-64 holds no manifest.json" in capsys.readouterr().err
    assert main([*command, f"{tmp_path}/other=0.7", f"{tmp_path}/more"]) == USAGE_ERROR
    assert "has no weight and others have" in capsys.readouterr().err


def test_classes_that_disagree_are_refused(tmp_path) -> None:
    config = override(small_stage(None, 16, base_channels=8, num_steps=10, num_workers=1), model__unet__num_classes=4)
    two, four, none = (
        prepare(tmp_path / name, [20], 4, name, num_classes=number) for name, number in (("2", 2), ("4", 4), ("0", 0))
    )
    with pytest.raises(DataError, match=r"2/base-16 holds 2 classes and .*4/base-16 holds 4 classes, so that a class"):
        open_training_split(read_data([two, four]), config)
    with pytest.raises(DataError, match=r"0/base-16 holds no classes"):
        open_training_split(read_data([four, none]), config)
    assert (
        open_training_split(read_data([four, str(shutil.copytree(four, tmp_path / "again"))]), config).num_samples == 40
    )
