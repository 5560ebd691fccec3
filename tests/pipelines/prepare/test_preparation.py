"""The preparation from end to end on a local Ray: what is in the shards, and that it is the same bytes every time."""

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from webdataset import WebDataset  # pyright: ignore[reportAttributeAccessIssue] - its stubs do not export it

from cluster.cli import main
from pipelines.images.rejects import RejectReason
from pipelines.prepare.finished.verify import verify
from pipelines.prepare.preparation import PrepareSummary, prepare
from pipelines.settings.stages import parse_stages
from pipelines.shards.manifest import load_index, load_manifest
from pipelines.shards.records import read_record
from sr3core.errors import ConfigError, DataError
from sr3core.images.pixels import largest_central_crop
from sr3core.images.resize import blur, resize_area, resize_bicubic
from tests.pipelines.prepare.preparations import (
    SAMPLES_PER_SHARD,
    STAGES,
    all_bytes,
    config_for,
    picture,
    quiet,
    samples,
)


def test_every_image_is_in_a_shard_or_among_the_rejects(prepared: tuple[Path, PrepareSummary]) -> None:
    out, summary = prepared
    assert summary.num_images == 26
    for stage, expected in (("8-16", {"duplicate": 1, "not_an_image": 1}), ("16-32", None)):
        manifest = load_manifest(str(out / stage))
        rejects = expected or {"duplicate": 1, "not_an_image": 1, "too_small": 2}
        assert manifest.num_rejects == summary.num_rejects[stage] == rejects
        assert sum(summary.num_samples[stage].values()) == 26 - sum(rejects.values())
        assert all(manifest.splits[split] for split in ("train", "validation"))
        rows = [json.loads(line) for line in (out / stage / "rejects.jsonl").read_text().splitlines()]
        assert [row["reason"] for row in rows] == [reject.reason for reject in manifest.rejects]
    duplicate = next(r for r in load_manifest(str(out / "8-16")).rejects if r.reason == RejectReason.DUPLICATE)
    assert duplicate.path == "n01440764/zz again.png"
    assert "07 ü" in duplicate.detail


def test_records_are_what_the_paper_says(source: Path, prepared: tuple[Path, PrepareSummary]) -> None:
    out, _ = prepared
    for stage in parse_stages("8-16,16-32,base-8"):
        for key, members in samples(out / stage.name):
            record = read_record(key, members)
            original = np.asarray(Image.open(source / record.meta["name"]).convert("RGB"))
            high = resize_area(largest_central_crop(original), stage.high_size)
            np.testing.assert_array_equal(record.high, high)
            assert (record.meta["width"], record.meta["height"]) == original.shape[1::-1]
            assert record.meta["format"] == "PNG"
            assert record.label == (0 if "n01440764" in record.meta["name"] else 1)
            assert record.meta["synset"] == record.meta["name"].split("/")[0]
            if stage.low_size is None:
                assert record.low is None
                continue
            low = resize_bicubic(high, stage.low_size)
            np.testing.assert_array_equal(record.low, low)
            assert len(record.low_blurred) == len(record.meta["blur_sigmas"]) == 2
            for image, sigma in zip(record.low_blurred, record.meta["blur_sigmas"], strict=True):
                assert 0 <= sigma <= 1
                np.testing.assert_array_equal(image, blur(low, sigma))


def test_blur_is_drawn_anew_for_each_record(prepared: tuple[Path, PrepareSummary]) -> None:
    sigmas = [s for _, members in samples(prepared[0] / "8-16") for s in json.loads(members["json"])["blur_sigmas"]]
    assert len(set(sigmas)) == len(sigmas) == 48
    assert 0.3 < np.mean(sigmas) < 0.7


def test_shards_are_plain_webdataset(prepared: tuple[Path, PrepareSummary]) -> None:
    directory = prepared[0] / "16-32"
    names = [str(directory / entry.name) for entry in load_manifest(str(directory)).splits["train"]]
    dataset = WebDataset(names, shardshuffle=False)
    read = {sample["__key__"]: sample for sample in dataset}
    ours = dict(samples(directory))
    assert set(read) <= set(ours)
    for key, sample in read.items():
        assert {name: sample[name] for name in ours[key]} == ours[key]


def test_tars_carry_no_time_and_no_owner(prepared: tuple[Path, PrepareSummary]) -> None:
    for path in sorted((prepared[0] / "8-16").glob("*.tar")):
        with tarfile.open(path) as archive:
            for member in archive:
                assert (member.mtime, member.uid, member.gid, member.uname, member.gname) == (0, 0, 0, "", "")
                assert path.read_bytes()[member.offset :][257:265] == b"ustar\x0000"


def test_a_stage_shares_its_splits_with_every_other(prepared: tuple[Path, PrepareSummary]) -> None:
    split_of: dict[str, set[str]] = {}
    for stage in STAGES:
        for split, entries in load_manifest(str(prepared[0] / stage)).splits.items():
            for entry in entries:
                for name in load_index(str(prepared[0] / stage), entry.name).names:
                    split_of.setdefault(name, set()).add(split)
    assert all(len(splits) == 1 for splits in split_of.values())


def test_one_and_four_workers_make_the_same_bytes(
    source: Path, prepared: tuple[Path, PrepareSummary], tmp_path: Path
) -> None:
    prepare(config_for(source, tmp_path / "one", num_workers=1), quiet)
    prepare(config_for(source, tmp_path / "four", num_workers=4), quiet)
    expected = all_bytes(prepared[0])
    assert any(name.endswith(".tar") for name in expected)
    assert all_bytes(tmp_path / "one") == expected
    assert all_bytes(tmp_path / "four") == expected


def test_the_same_command_again_does_nothing(source: Path, prepared: tuple[Path, PrepareSummary]) -> None:
    out, first = prepared
    before = {path: path.stat().st_mtime_ns for path in out.glob("*/*.tar")}
    second = prepare(config_for(source, out), quiet)
    assert second.num_shards_written == 0
    assert second.num_samples == first.num_samples
    assert {path: path.stat().st_mtime_ns for path in out.glob("*/*.tar")} == before


def test_only_what_is_missing_is_done_again(source: Path, tmp_path: Path, ray_session: None) -> None:
    out = tmp_path / "out"
    prepare(config_for(source, out), quiet)
    expected = all_bytes(out)
    (out / "8-16" / "train-000001.index.json").unlink()
    (out / "16-32" / "train-000000.tar").unlink()
    (out / "base-8" / "train-000000.index.json").write_bytes(b"{ cut")
    (out / "base-8" / "manifest.json").unlink()
    again = prepare(config_for(source, out, num_workers=1), quiet)
    assert again.num_shards_written >= 2  # and once more those that hold a duplicate
    assert all_bytes(out) == expected
    assert verify(str(out)) == []


def test_another_configuration_on_the_same_folder_is_refused(
    source: Path, prepared: tuple[Path, PrepareSummary]
) -> None:
    with pytest.raises(ConfigError, match=r"seed: 3 -> 4.*another --out"):
        prepare(config_for(source, prepared[0], seed=4), quiet)
    with pytest.raises(ConfigError, match=r"stages"):
        prepare(config_for(source, prepared[0], stages=("8-16",)), quiet)


def test_a_source_that_changed_is_refused(tmp_path: Path, ray_session: None) -> None:
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "a.png").write_bytes(picture(1))
    prepare(config_for(folder, tmp_path / "out", stages=("8-16",), validation_fraction=0, test_fraction=0), quiet)
    (folder / "b.png").write_bytes(picture(2))
    with pytest.raises(DataError, match=r"1 images then, 2 now"):
        prepare(config_for(folder, tmp_path / "out", stages=("8-16",), validation_fraction=0, test_fraction=0), quiet)


def test_a_stage_that_no_image_is_large_enough_for(source: Path, tmp_path: Path, ray_session: None) -> None:
    with pytest.raises(DataError, match=r"no image of .* can be used for 16-128.*too_small"):
        prepare(config_for(source, tmp_path / "out", stages=("8-16", "16-128")), quiet)
    assert load_manifest(str(tmp_path / "out" / "8-16")).num_samples("train") > 0


def test_duplicates_can_be_kept(source: Path, tmp_path: Path, ray_session: None) -> None:
    summary = prepare(config_for(source, tmp_path / "out", stages=("8-16",), keep_duplicates=True), quiet)
    assert summary.num_rejects["8-16"] == {"not_an_image": 1}


def test_webp_records_hold_the_same_pixels(source: Path, prepared: tuple[Path, PrepareSummary], tmp_path: Path) -> None:
    prepare(config_for(source, tmp_path / "out", stages=("16-32",), image_format="webp"), quiet)
    png, webp = dict(samples(prepared[0] / "16-32")), dict(samples(tmp_path / "out" / "16-32"))
    assert png.keys() == webp.keys()
    for key, members in webp.items():
        assert "hr.webp" in members
        for ours, theirs in zip(_images(read_record(key, png[key])), _images(read_record(key, members)), strict=True):
            np.testing.assert_array_equal(ours, theirs)


def _images(record: object) -> tuple[np.ndarray, ...]:
    return (record.high, record.low, *record.low_blurred)  # type: ignore[attr-defined]


def test_provenance(prepared: tuple[Path, PrepareSummary]) -> None:
    manifest = load_manifest(str(prepared[0] / "8-16"))
    assert manifest.provenance["seed"] == 3
    assert manifest.provenance["config"]["samples_per_shard"] == SAMPLES_PER_SHARD
    assert manifest.provenance["fingerprint"] == manifest.fingerprint
    assert manifest.provenance["parents"]["source"]
    assert {"python", "ray", "pillow", "numpy"} <= manifest.provenance["versions"].keys()


def test_ffhqs_own_photos_are_aligned_rejected_or_ignored_by_name(
    photos: Path, tmp_path: Path, ray_session: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """With --align-faces the in-the-wild photos are taken; one without a face is a reject, the rest is ignored."""
    face = next(photos.glob("portrait-*.jpg")).read_bytes()
    files = {
        "in-the-wild-images/00000/00000.jpg": face,
        "in-the-wild-images/00000/00001.png": picture(0, (90, 90)),
        "images1024x1024/00000/00000.jpg": face,
        "thumbnails128x128/00000/00000.jpg": face,
        "ffhq-dataset-v2.json": b"{}",
        "in-the-wild-images/.DS_Store": b"",
    }
    for name, data in files.items():
        (tmp_path / "ffhq" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "ffhq" / name).write_bytes(data)
    out = tmp_path / "out"
    command = ["prepare", "--source", str(tmp_path / "ffhq"), "--out", str(out), "--stages", "16-32", "--align-faces"]
    assert main([*command, "--dry-run"]) == 0
    assert "from 2 images (layout ffhq)" in capsys.readouterr().out
    assert main([*command, "--validation-fraction", "0"]) == 0
    said = capsys.readouterr().out
    assert "16-32: 1 train, 0 validation, 0 test; rejected: 1 no_face" in said
    assert "2 not_in_layout ('images1024x1024/00000/00000.jpg', 'thumbnails128x128/00000/00000.jpg')" in said
    ignored = {json.loads(line)["path"] for line in (out / "ignored.jsonl").read_text().splitlines()}
    rejected = {json.loads(line)["path"] for line in (out / "16-32" / "rejects.jsonl").read_text().splitlines()}
    assert ignored | rejected | {"in-the-wild-images/00000/00000.jpg"} == set(files)
    assert not ignored & rejected
