"""The preparation from end to end on a local Ray: what is in the shards, that it is the same bytes every time, status,
verify and contact sheet."""

import io
import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import webdataset
from PIL import Image

from pipelines.images.rejects import RejectReason
from pipelines.prepare.contact_sheet import contact_sheet
from pipelines.prepare.preparation import PrepareSummary, prepare
from pipelines.prepare.progress import PrepareProgress
from pipelines.prepare.status import prepare_status
from pipelines.prepare.verify import describe, verify
from pipelines.settings.prepare import PrepareConfig
from pipelines.settings.stages import parse_stages
from pipelines.shards.manifest import load_index, load_manifest
from pipelines.shards.records import read_record
from sr3core.errors import ConfigError, DataError
from sr3core.images.pixels import largest_central_crop
from sr3core.images.resize import blur, resize_area, resize_bicubic

STAGES = ("8-16", "16-32", "base-8", "16-64")
HALF, HELD_OUT = 6, 0.25


def quiet(_: PrepareProgress) -> None:
    """Progress that nobody reads."""


def picture(seed: int, size: tuple[int, int] = (40, 36)) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty-four images in two classes, two of them too small, one that is none, and one twice under two names."""
    folder = tmp_path_factory.mktemp("source")
    for number in range(24):
        path = folder / ("n01440764" if number % 2 else "n01443537") / f"{number:02d} ü\n.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(
            picture(number, (20, 90) if number in (3, 8) else (40 + 32 * (number == 5), 36 + 50 * (number == 5)))
        )
    (folder / "n01440764" / "broken.jpg").write_bytes(b"<html>404</html>")
    (folder / "n01440764" / "zz again.png").write_bytes(picture(7))
    return folder


def config_for(source: Path, out: Path, **changes: object) -> PrepareConfig:
    defaults = {
        "stages": STAGES[:3],
        "validation_fraction": HELD_OUT,
        "test_fraction": 0.1,
        "samples_per_shard": HALF,
        "blur_variants": 2,
        "seed": 3,
    }
    return PrepareConfig(source=str(source), out=str(out), **{**defaults, **changes})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def prepared(source: Path, tmp_path_factory: pytest.TempPathFactory, ray_session: None) -> tuple[Path, PrepareSummary]:
    out = tmp_path_factory.mktemp("prepared") / "out"
    return out, prepare(config_for(source, out), quiet)


def samples(directory: Path) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Every record by the tar offsets of the indices."""
    for entries in load_manifest(str(directory)).splits.values():
        for entry in entries:
            data = (directory / entry.name).read_bytes()
            index = load_index(str(directory), entry.name)
            for key, members in zip(index.keys, index.members, strict=True):
                yield key, {name: data[offset : offset + size] for name, (offset, size) in members.items()}


def all_bytes(out: Path, pattern: str = "*/*") -> dict[str, bytes]:
    found = {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.glob(pattern))}
    return {name: data for name, data in found.items() if not name.endswith("manifest.json")}


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
    dataset = webdataset.WebDataset(names, shardshuffle=False)
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
    for stage in STAGES[:3]:
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
    assert manifest.provenance["config"]["samples_per_shard"] == HALF
    assert manifest.provenance["fingerprint"] == manifest.fingerprint
    assert manifest.provenance["parents"]["source"]
    assert {"python", "ray", "pillow", "numpy"} <= manifest.provenance["versions"].keys()


@pytest.mark.parametrize("name", ["manifest.json", "train-000000.index.json"])
def test_another_format_version_is_refused(prepared: tuple[Path, PrepareSummary], tmp_path: Path, name: str) -> None:
    data = json.loads((prepared[0] / "8-16" / name).read_text())
    (tmp_path / name).write_text(json.dumps({**data, "format_version": 99}))
    with pytest.raises(DataError, match=r"format version 99.*reads 1"):
        load_manifest(str(tmp_path)) if name == "manifest.json" else load_index(str(tmp_path), "train-000000.tar")


def test_no_manifest_means_not_prepared(tmp_path: Path) -> None:
    for call in (load_manifest, prepare_status, verify):
        with pytest.raises(DataError, match=r"sr3 prepare|nothing was prepared"):
            call(str(tmp_path))


# --- verify -----------------------------------------------------------------------------------------------------------


def copy_of(out: Path, target: Path) -> Path:
    for path in out.rglob("*"):
        if path.is_file():
            (target / path.relative_to(out)).parent.mkdir(parents=True, exist_ok=True)
            (target / path.relative_to(out)).write_bytes(path.read_bytes())
    return target


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-700])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[700] ^= 1
    path.write_bytes(data)


def move_offset(path: Path) -> None:
    index = path.with_name(path.name.replace(".tar", ".index.json"))
    data = json.loads(index.read_text())
    data["samples"][1]["members"]["hr.png"][0] += 512
    index.write_text(json.dumps(data))


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated shard": (cut, "truncated"),
    "changed byte": (flip, "SHA-256"),
    "missing shard": (Path.unlink, "No such file"),
    "missing index": (lambda path: path.with_name(path.name.replace(".tar", ".index.json")).unlink(), "index"),
    "wrong offset": (move_offset, "hr.png"),
    "truncated index": (lambda path: cut(path.with_name(path.name.replace(".tar", ".index.json"))), "damaged"),
    "truncated manifest": (lambda path: cut(path.with_name("manifest.json")), "manifest"),
    "missing manifest": (lambda path: path.with_name("manifest.json").unlink(), "manifest"),
    "a shard too many": (lambda path: path.with_name("train-000099.tar").write_bytes(b""), "not in manifest"),
    "a leftover": (lambda path: path.with_name(".00-train.tmp").write_bytes(b""), "killed"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_verify_finds(prepared: tuple[Path, PrepareSummary], tmp_path: Path, damage: str) -> None:
    assert verify(str(prepared[0])) == []
    assert "all shards are there and whole" in describe(str(prepared[0]), [])
    out = copy_of(prepared[0], tmp_path / "copy")
    break_it, word = DAMAGES[damage]
    break_it(out / "16-32" / "train-000001.tar")
    problems = verify(str(out))
    assert problems
    assert all(str(out / "16-32") in problem.path for problem in problems)
    assert any(word in problem.problem or word in problem.path for problem in problems), problems
    assert len(describe(str(out), problems).splitlines()) == len(problems)
    if damage != "missing manifest":  # without it, a stage's folder on its own says nothing
        assert verify(str(out / "16-32"))
    assert verify(str(out / "8-16")) == []


# --- status, progress, contact sheet ----------------------------------------------------------------------------------


def test_status_of_a_finished_and_of_an_unfinished_preparation(
    source: Path, prepared: tuple[Path, PrepareSummary], tmp_path: Path
) -> None:
    status = prepare_status(str(prepared[0]))
    assert status.complete
    assert status.num_images == 26
    assert status.layout == "imagenet"
    assert [stage.num_samples for stage in status.stages] == [24, 22, 24]
    out = copy_of(prepared[0], tmp_path / "copy")
    (out / "8-16" / "manifest.json").unlink()
    (out / "8-16" / "train-000000.index.json").unlink()
    status = prepare_status(str(out))
    assert not status.complete
    assert status.stages[0].shards_done == status.stages[0].num_shards - 1
    assert "images/s" in "\n".join(status.lines())


def test_progress_is_told(source: Path, tmp_path: Path, ray_session: None) -> None:
    lines = []
    prepare(config_for(source, tmp_path / "out", stages=("8-16",)), lambda progress: lines.append(progress.line()))
    assert len(lines) >= 5
    assert "images/s" in lines[-1]
    assert "left" in lines[-1]
    assert "26 images" in lines[-1] or "images" in lines[-1]


def test_contact_sheet_is_a_picture_of_records(prepared: tuple[Path, PrepareSummary], tmp_path: Path) -> None:
    for number in (1, 5, 24):
        path = tmp_path / f"{number}.png"
        contact_sheet(str(prepared[0] / "16-32"), str(path), num_records=number)
        pixels = np.asarray(Image.open(path))
        assert pixels.shape[0] > 150
        assert pixels.std() > 20
    assert (tmp_path / "5.png").read_bytes() != (tmp_path / "24.png").read_bytes()


# --- configuration ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["", "16", "16-", "128-16", "16-120", "base-", "0-16", "16-128,16-128", "a-b", "16-16"]
)
def test_bad_stages_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="stages"):
        parse_stages(text)


def test_bad_values_are_refused() -> None:
    for changes in (
        {"validation_fraction": 1.5},
        {"validation_fraction": 0.6, "test_fraction": 0.6},
        {"samples_per_shard": 0},
        {"blur_variants": -1},
        {"num_workers": 0},
    ):
        with pytest.raises(ConfigError, match=next(iter(changes))):
            PrepareConfig(source="s", out="o", stages=("8-16",), **changes)  # type: ignore[arg-type]
