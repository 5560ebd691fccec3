"""Given pairs in shards: crops of both at the same place, every pair that does not fit rejected by name."""

import io
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipelines.images.rejects import DecodeError, RejectReason
from pipelines.prepare.finished.manifest_writer import write_manifest
from pipelines.prepare.finished.pair_remarks import pair_remarks
from pipelines.prepare.finished.verify import verify
from pipelines.prepare.plan.shard_plan import load_own_plan
from pipelines.prepare.preparation import describe_plan
from pipelines.prepare.writing.pairs import check_pair
from pipelines.settings.prepare import PrepareConfig
from pipelines.shards.manifest import Manifest, load_index, load_manifest
from pipelines.shards.mixtures import operator_of
from pipelines.shards.records import content_digest, read_record, record_key
from sr3core.config import fingerprint, override
from sr3core.errors import ConfigError
from sr3core.images.resize import resize_bicubic
from tests.pipelines.prepare.preparations import samples
from tests.preparing import prepared_without_ray, stages_of

SCALE = 4


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def originals(photos: Path) -> dict[str, np.ndarray]:
    """Photos of 192 x 240 pixels."""
    paths = sorted(photos.glob("*.jpg"))[:6]
    return {p.stem: np.asarray(Image.open(p).convert("RGB").resize((240, 192))) for p in paths}


def shrunk(image: np.ndarray) -> np.ndarray:
    return resize_bicubic(image, (image.shape[0] // SCALE, image.shape[1] // SCALE))


def write_pairs(
    folder: Path, originals: dict[str, np.ndarray], make: Callable[[np.ndarray], np.ndarray] = shrunk
) -> tuple[Path, Path]:
    for side in ("HR", "LR"):
        (folder / side).mkdir(parents=True)
    for name, image in originals.items():
        (folder / "HR" / f"{name}.png").write_bytes(png(image))
        (folder / "LR" / f"{name}x4.png").write_bytes(png(make(image)))
    return folder / "HR", folder / "LR"


def config_for(high: Path, low: Path, out: Path, **changes: object) -> PrepareConfig:
    common = {"stages": ("16-64",), "low_suffix": "x4", "crops_per_image": 3, "validation_fraction": 0.2}
    return PrepareConfig(source=str(high), low=str(low), out=str(out), **{**common, **changes})  # type: ignore[arg-type]


def complete(config: PrepareConfig) -> Manifest:
    prepared_without_ray(config)
    stage = config.stage_specs[0]
    return write_manifest(config, load_own_plan(config), stage, stages_of(config)[stage.name])


def test_records_are_cut_from_both_images_at_one_place(originals: dict[str, np.ndarray], tmp_path: Path) -> None:
    high, low = write_pairs(tmp_path, originals, lambda image: 255 - shrunk(255 - image) // 2)
    config = config_for(high, low, tmp_path / "out", blur_variants=1)
    manifest = complete(config)
    assert sum(map(manifest.num_samples, manifest.splits)) == 3 * len(originals)
    for key, members in samples(tmp_path / "out" / "16-64"):
        record = read_record(key, members)
        name, (top, left, height, width) = record.meta["name"], record.meta["window"]
        files = (high / name, low / name.replace(".png", "x4.png"))
        big, small = (np.asarray(Image.open(path)) for path in files)
        assert top % SCALE == left % SCALE == 0
        np.testing.assert_array_equal(record.high, big[top : top + height, left : left + width])
        np.testing.assert_array_equal(record.low, small[top // 4 : top // 4 + 16, left // 4 : left // 4 + 16])
        digest = content_digest(b"".join(path.read_bytes() for path in files))
        assert key == record_key(f"{name}@{top},{left}", digest)
        assert len(record.low_blurred) == 1
        assert max(map(abs, record.meta["shift"])) < 0.2
    assert verify(config.out) == []
    assert (manifest.operator, operator_of(config.out, "16-64")) == (None, None)
    assert list(pair_remarks(config, manifest)) == []


def test_an_image_of_the_stages_size_keeps_its_given_one_untouched(
    originals: dict[str, np.ndarray], tmp_path: Path
) -> None:
    whole = {name: image[:64, :64] for name, image in originals.items()}
    high, low = write_pairs(tmp_path, whole)
    complete(config_for(high, low, tmp_path / "out"))
    records = [read_record(key, members) for key, members in samples(tmp_path / "out" / "16-64")]
    assert len(records) == len(whole)
    for record in records:
        np.testing.assert_array_equal(record.low, shrunk(whole[Path(record.meta["name"]).stem]))


def test_every_pair_that_does_not_fit_is_rejected_by_name(originals: dict[str, np.ndarray], tmp_path: Path) -> None:
    high, low = write_pairs(tmp_path, originals)
    names = sorted(originals)
    faults = {
        names[0]: png(resize_bicubic(originals[names[0]], (96, 120))),
        names[1]: png(np.roll(shrunk(originals[names[1]]), 2, axis=1)),
        names[2]: png(shrunk(originals[names[3]])[::-1]),
        names[4]: b"<html>404</html>",
    }
    for name, data in faults.items():
        (low / f"{name}x4.png").write_bytes(data)
    (low / "none.png").write_bytes(png(originals[names[0]]))
    small = originals[names[5]][:48, :80]
    (high / f"{names[5]}.png").write_bytes(png(small))
    (low / f"{names[5]}x4.png").write_bytes(png(shrunk(small)))
    config = config_for(high, low, tmp_path / "out")
    manifest = complete(config)
    found = {reject.path.removesuffix(".png"): (str(reject.reason), reject.detail) for reject in manifest.rejects}
    assert {name: reason for name, (reason, _) in found.items()} == {
        names[0]: "ratio",
        names[1]: "shifted",
        names[2]: "shifted",
        names[4]: "not_an_image",
        names[5]: "too_small",
    }
    assert found[names[0]][1].startswith("240x192 is not 4 times the 120x96 of its low-resolution image")
    moved = re.search(r"shifted by (\S+) pixels down and (\S+) to the right", found[names[1]][1])
    assert moved is not None
    assert (float(moved[1]), float(moved[2])) == (pytest.approx(0, abs=0.15), pytest.approx(2, abs=0.15))
    assert "(--max-shift)" in found[names[1]][1]
    assert "shows something else" in found[names[2]][1]
    assert found[names[4]][1].startswith("its low-resolution image: ")
    assert "ignored: 1 unpaired ('none.png (of --low)')" in describe_plan(override(config, out=str(tmp_path / "new")))
    assert verify(config.out) == []


def test_a_shift_that_all_pairs_share_is_said(originals: dict[str, np.ndarray], tmp_path: Path) -> None:
    """Every fourth pixel, the fault of a strided slice, lies 1.5 pixels from the middle of four: 0.375 of a low one."""
    high, low = write_pairs(tmp_path, originals, lambda image: image[::SCALE, ::SCALE])
    config = config_for(high, low, tmp_path / "out", max_shift=1.0)
    (line,) = pair_remarks(config, complete(config))
    assert line.startswith("warning: 16-64: the low-resolution images are shifted by 0.3")


def test_large_pictures_are_judged_by_their_middle(originals: dict[str, np.ndarray]) -> None:
    image = np.tile(np.concatenate(list(originals.values()), axis=1), (12, 2, 1))  # (2304, 2880, 3)
    config = PrepareConfig(source="s", low="l", out="o", stages=("16-64",))
    assert max(map(abs, check_pair(config, image, shrunk(image))["shift"])) < 0.1
    with pytest.raises(DecodeError) as caught:
        check_pair(config, image, np.roll(shrunk(image), 1, axis=0))
    assert caught.value.reason is RejectReason.SHIFTED


def test_crops_of_scales_that_are_not_whole_begin_with_whole_pixels_of_both(
    originals: dict[str, np.ndarray], tmp_path: Path
) -> None:
    """24 -> 64 is 8/3: crops begin at multiples of 8 and 3."""
    high, low = write_pairs(tmp_path, originals, lambda image: resize_bicubic(image, (72, 90)))
    config = config_for(high, low, tmp_path / "out", stages=("24-64",))
    assert sum(map((manifest := complete(config)).num_samples, manifest.splits)) == 3 * len(originals)
    for key, members in samples(tmp_path / "out" / "24-64"):
        record = read_record(key, members)
        top, left, *_ = record.meta["window"]
        assert (top % 8, left % 8) == (0, 0)
        whole = np.asarray(Image.open(low / record.meta["name"].replace(".png", "x4.png")))
        np.testing.assert_array_equal(
            record.low, whole[top * 3 // 8 : top * 3 // 8 + 24, left * 3 // 8 : left * 3 // 8 + 24]
        )


def test_a_table_of_two_columns(originals: dict[str, np.ndarray], tmp_path: Path) -> None:
    rows = {"hr": [png(image) for image in originals.values()], "lr": [png(shrunk(i)) for i in originals.values()]}
    pq.write_table(pa.table(rows), tmp_path / "p.parquet", row_group_size=2)
    config = PrepareConfig(
        source=str(tmp_path / "p.parquet"),
        out=str(tmp_path / "out"),
        stages=("16-64",),
        image_column="hr",
        low_column="lr",
        validation_fraction=0.0,
    )
    assert complete(config).num_samples("train") == len(originals)
    for key, members in samples(tmp_path / "out" / "16-64"):
        record = read_record(key, members)
        assert record.low is not None
        assert "shift" in record.meta


def test_duplicates_are_pairs_of_the_same_bytes(originals: dict[str, np.ndarray], tmp_path: Path) -> None:
    """One photo through two cameras is two pairs."""
    high, low = write_pairs(tmp_path, {"a": next(iter(originals.values()))})
    (high / "b.png").write_bytes((high / "a.png").read_bytes())
    (low / "bx4.png").write_bytes(png(np.asarray(Image.open(low / "ax4.png")) // 2))
    config = config_for(high, low, tmp_path / "out", validation_fraction=0.0)
    complete(config)
    (shard,) = load_own_plan(config).shards
    assert len(set(load_index(f"{config.out}/16-64", shard.name).digests)) == 2


def test_moved_low_resolution_images_are_the_same_preparation_and_made_ones_another() -> None:
    common = {"source": "s", "out": "o", "stages": ("16-64",)}
    given = PrepareConfig(low="here", **common)
    assert fingerprint(given) == fingerprint(PrepareConfig(low="there", **common))
    assert fingerprint(given) != fingerprint(PrepareConfig(**common))


def test_a_manifest_without_pairs_says_nothing_of_operators(originals: dict[str, np.ndarray], tmp_path: Path) -> None:
    high, _ = write_pairs(tmp_path, originals)
    config = PrepareConfig(source=str(high), out=str(tmp_path / "out"), stages=("16-64",))
    assert complete(config).operator == "bicubic"
    assert b'"operator"' not in (tmp_path / "out" / "16-64" / "manifest.json").read_bytes()
    assert load_manifest(f"{config.out}/16-64").operator == "bicubic"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"low": "l", "stages": ("16-64", "16-32")}, "are of several scales, and given pairs have one"),
        ({"low": "l", "stages": ("base-64",)}, "need no low-resolution images"),
        ({"low_suffix": "x4"}, "low_suffix: 'x4' is for pairs; add --low"),
        ({"low": "l", "max_shift": 0.0}, "max_shift: 0.0 is not positive"),
        ({"low": "l", "align_faces": True}, "native crops and pairs keep their pixels"),
    ],
)
def test_settings_that_do_not_go_together(changes: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PrepareConfig(**{"source": "s", "out": "o", "stages": ("16-64",), **changes})
