"""Native crops: places that seed, image and number decide, the caps on flat ones, and preparations made of them."""

import dataclasses
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipelines.prepare.finished.contact_sheet import contact_sheet
from pipelines.prepare.finished.duplicates import find_duplicates, tasks_without_duplicates
from pipelines.prepare.finished.status import prepare_status
from pipelines.prepare.finished.verify import describe, verify
from pipelines.prepare.plan.shard_plan import load_own_plan
from pipelines.prepare.preparation import describe_plan, prepare
from pipelines.prepare.writing.crops import chosen_places, is_flat, places
from pipelines.settings.prepare import PrepareConfig
from pipelines.shards.manifest import load_index, load_manifest, save_index
from pipelines.shards.records import content_digest, read_record, record_key
from sr3core.images.resize import resize_bicubic
from tests.pipelines.prepare.preparations import all_bytes, config_for, copy_of, picture, quiet, samples
from tests.preparing import prepared_without_ray, stages_of

NATIVE = {"crop": "native", "crops_per_image": 3, "stages": ("8-16", "16-32", "4-16")}


def write_sources(folder: Path) -> Path:
    """Six pictures of 40x36, one of them twice, one as large as a 32-pixel crop, one smaller, one half flat."""
    folder.mkdir()
    for number in range(6):
        (folder / f"{number}.png").write_bytes(picture(number))
    (folder / "again.png").write_bytes(picture(3))
    (folder / "exact.png").write_bytes(picture(20, (32, 32)))
    (folder / "small.png").write_bytes(picture(21, (20, 90)))
    half = np.random.default_rng(22).integers(0, 256, (64, 128, 3), dtype=np.uint8)
    half[:, :64] = 200
    Image.fromarray(half).save(folder / "half.png")
    Image.new("RGB", (50, 50), "grey").save(folder / "grey.png")
    return folder


@pytest.fixture(scope="module")
def cropped(tmp_path_factory: pytest.TempPathFactory, ray_session: None) -> PrepareConfig:
    folder = tmp_path_factory.mktemp("crops")
    config = config_for(write_sources(folder / "source"), folder / "out", **NATIVE)
    prepare(config, quiet)
    return config


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 5))
def test_every_place_comes_once_in_an_order_that_the_seed_decides(rows: int, columns: int, seed: int) -> None:
    drawn = list(places(seed, 16, "key", (rows, columns)))
    assert sorted(drawn) == [(top, left) for top in range(rows) for left in range(columns)]
    assert drawn == list(places(seed, 16, "key", (rows, columns)))


def test_places_differ_by_seed_size_and_image_and_are_spread_evenly() -> None:
    def first(*key: object) -> list[tuple[int, int]]:
        return list(islice(places(*key, (400, 600)), 2000))  # type: ignore[arg-type]

    base = first(0, 64, "a")
    assert len({tuple(base), tuple(first(1, 64, "a")), tuple(first(0, 32, "a")), tuple(first(0, 64, "b"))}) == 4
    tops, lefts = np.array(base).T
    assert abs(tops.mean() - 199.5) < 10  # three standard errors are 7.7 and 11.6
    assert abs(lefts.mean() - 299.5) < 15
    assert (tops.min(), lefts.min()) < (5, 5)
    assert (tops.max(), lefts.max()) > (394, 594)


def test_records_are_cut_from_the_photo_and_their_low_twins_made_from_them(cropped: PrepareConfig) -> None:
    for stage in cropped.stage_specs:
        seen: dict[str, set[tuple[int, ...]]] = {}
        for key, members in samples(Path(cropped.out) / stage.name):
            record = read_record(key, members)
            name, (top, left, height, width) = record.meta["name"], record.meta["window"]
            data = (Path(cropped.source) / name).read_bytes()
            original = np.asarray(Image.open(Path(cropped.source) / name).convert("RGB"))
            assert (height, width) == (stage.high_size,) * 2
            np.testing.assert_array_equal(record.high, original[top : top + height, left : left + width])
            assert stage.low_size is not None
            np.testing.assert_array_equal(record.low, resize_bicubic(record.high, stage.low_size))
            assert key == record_key(f"{name}@{top},{left}", content_digest(data))
            assert len(record.low_blurred) == 2
            seen.setdefault(name, set()).add((top, left))
        assert {name: len(windows) for name, windows in seen.items()} == {
            **{f"{number}.png": 3 for number in range(6)},
            **({"half.png": 3, "grey.png": 3, "exact.png": 3 if stage.high_size == 16 else 1}),
            **({"small.png": 3} if stage.high_size == 16 else {}),
        }


def test_stages_of_one_size_hold_the_same_crops(cropped: PrepareConfig) -> None:
    keys = {stage: {key for key, _ in samples(Path(cropped.out) / stage)} for stage in cropped.stages}
    assert keys["8-16"] == keys["4-16"]
    assert not keys["8-16"] & keys["16-32"] - {record_key("exact.png@0,0", "")}


def test_every_image_is_accounted_for_and_none_is_its_own_duplicate(cropped: PrepareConfig) -> None:
    assert verify(cropped.out) == []
    assert find_duplicates(load_own_plan(cropped), [*stages_of(cropped).values()]).kept == {"again.png": "3.png"}
    assert load_manifest(f"{cropped.out}/16-32").num_rejects == {"duplicate": 1, "too_small": 1}
    assert load_manifest(f"{cropped.out}/8-16").num_rejects == {"duplicate": 1}
    status = prepare_status(cropped.out)
    assert status.complete
    assert (status.num_images, [stage.num_samples for stage in status.stages]) == (11, [30, 25, 30])


def test_verify_misses_an_image_whose_crops_are_all_gone(cropped: PrepareConfig, tmp_path: Path) -> None:
    out, stage = copy_of(Path(cropped.out), tmp_path / "copy"), "8-16"
    shard = next(shard for shard in load_own_plan(cropped).shards if shard.num_images == 2)
    index = load_index(str(out / stage), shard.name)
    save_index(str(out / stage), dataclasses.replace(index, names=index.names[:1] * len(index.names)))
    assert "2 images were planned, but 1 are in the shard or rejected" in describe(str(out), verify(str(out)))


def test_all_crops_of_an_image_are_in_one_shard(cropped: PrepareConfig) -> None:
    shards: dict[str, set[str]] = {}
    for shard in load_own_plan(cropped).shards:
        assert shard.num_images <= 2, "six samples a shard are two images of three crops"
        for name in load_index(f"{cropped.out}/8-16", shard.name).names:
            shards.setdefault(name, set()).add(shard.name)
    assert all(len(places) == 1 for places in shards.values())


def test_more_crops_begin_with_the_same_ones(cropped: PrepareConfig, tmp_path: Path) -> None:
    more = dataclasses.replace(cropped, out=str(tmp_path / "out"), crops_per_image=5, num_workers=1)
    prepare(more, quiet)
    few = dict(samples(Path(cropped.out) / "16-32"))
    assert few.items() <= dict(samples(tmp_path / "out" / "16-32")).items()


def test_one_worker_makes_the_same_bytes_and_a_repetition_writes_nothing(
    cropped: PrepareConfig, tmp_path: Path
) -> None:
    one = dataclasses.replace(cropped, out=str(tmp_path / "one"), num_workers=1)
    prepare(one, quiet)
    assert all_bytes(tmp_path / "one") == all_bytes(Path(cropped.out))
    assert prepare(one, quiet).num_shards_written == 0


def test_flat_crops_are_capped_and_others_taken_in_their_stead(tmp_path: Path) -> None:
    half = np.random.default_rng(0).integers(0, 256, (64, 128, 3), dtype=np.uint8)
    half[:, :64] = 90

    def flat(share: float) -> list[bool]:
        config = PrepareConfig(source="s", out="o", stages=("8-16",), crop="native", crops_per_image=40, max_flat=share)
        return [is_flat(half[t : t + 16, left : left + 16]) for t, left in chosen_places(config, 16, "key", half)]

    assert 8 < sum(flat(1.0)) < 30
    assert (sum(flat(0.1)), len(flat(0.1))) == (4, 40)
    assert (sum(flat(0.0)), len(flat(0.0))) == (0, 40)
    assert is_flat(np.full((1, 1, 3), 255, np.uint8))


def test_an_image_that_is_flat_everywhere_is_rejected_and_its_copy_in_another_stage_is_found(tmp_path: Path) -> None:
    """A chequered corner that small crops miss and a large one cannot: only the larger stage holds the image."""
    source = tmp_path / "source"
    source.mkdir()
    board = np.full((64, 64, 3), 100, np.uint8)
    board[:8, :8] = 255 * (np.indices((8, 8)).sum(axis=0) % 2)[..., None]
    for name in ("a", "b"):
        Image.fromarray(board).save(source / f"{name}.png")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(source / "c.png")
    splits = {"validation_fraction": 0.0, "test_fraction": 0.0}
    config = config_for(
        source, tmp_path / "out", stages=("8-16", "32-64"), crop="native", max_flat=0.0, seed=4, **splits
    )
    prepared_without_ray(config)
    plan = load_own_plan(config)
    indices = {stage: load_index(f"{config.out}/{stage}", plan.shards[0].name) for stage in config.stages}
    assert sorted((r.path, r.reason) for r in indices["8-16"].rejects) == [("a.png", "flat"), ("b.png", "flat")]
    assert sorted(indices["32-64"].names) == ["a.png", "b.png", "c.png"]
    assert {name for task in tasks_without_duplicates(config, plan, stages_of(config)) for name in task.duplicates} == {
        "b.png"
    }


def test_a_dry_run_counts_crops_and_bytes(cropped: PrepareConfig, tmp_path: Path) -> None:
    said = describe_plan(dataclasses.replace(cropped, out=str(tmp_path / "new"), crops_per_image=30_000))
    assert "8-16: at most 330000 crops of 16x16 pixels, 30000 of each image; 0.44 GB before compression" in said
    assert "crops of" not in describe_plan(config_for(Path(cropped.source), tmp_path / "new"))


def test_the_contact_sheet_draws_crops(cropped: PrepareConfig, tmp_path: Path) -> None:
    contact_sheet(f"{cropped.out}/16-32", str(tmp_path / "sheet.png"), num_records=6)
    assert np.asarray(Image.open(tmp_path / "sheet.png")).std() > 20
