"""The bytes that a preparation writes, pinned: what earlier versions prepared is resumed and added to, never redone."""

import hashlib
import io
import json
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.prepare.finished.manifest_writer import write_manifest
from pipelines.prepare.plan import buckets
from pipelines.prepare.plan.dealing import plan_addition, plan_shards
from pipelines.prepare.plan.shard_plan import load_own_plan, write_plan
from pipelines.prepare.sources import items, listed_parts
from pipelines.prepare.sources.listing import open_source
from pipelines.settings.prepare import PrepareConfig
from pipelines.storage import spool
from tests.pipelines.prepare.source_files import tar, write
from tests.preparing import prepared_without_ray, some_photos, stages_of

NAMES = [f"{'abc'[n % 3]}/{n:03d} ü\n.png" for n in range(40)]


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def zipped(names: list[str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for number, name in enumerate(names):
            archive.writestr(zipfile.ZipInfo(name), bytes([number]), zipfile.ZIP_DEFLATED if number % 2 else None)
    return buffer.getvalue()


def some_files(root: Path) -> Path:
    return write(root, {**dict.fromkeys(NAMES, b"x"), ".hidden/x.png": b"", "a/notes.txt": b"", "b/y.tar.gz": b""})


def imagenet(root: Path) -> Path:
    return write(root, {f"{('n01440764', 'n02123045')[n % 2]}/{n}.JPEG": b"x" for n in range(30)})


def some_tars(root: Path) -> Path:
    """Tars with labels, texts, names that occur again in the same tar, and a truncated one."""
    whole = {f"{n:04d}.{end}": str(n % 4).encode() for n in range(30) for end in ("jpg", "cls", "json")}
    named = {f"{n:04d}.{end}": b"x" for n in range(30) for end in ("jpg", "txt")}
    twice = tar(named)[:-1024].rstrip(b"\0") + b"\0" * 511
    twice = twice[: len(twice) // 512 * 512] + tar({"0003.jpg": b"y", "0007.jpg": b"z"})
    return write(root, {"b/0.tar": tar(whole), "b/1.tar": twice, "cut.tar": tar(whole)[:9000], "empty.tar": b""})


def nested_tars(root: Path) -> Path:
    inner = {f"n0{1440764 + k}.tar": tar({f"n0{1440764 + k}_{n}.JPEG": b"x" for n in range(9)}) for k in range(3)}
    return write(root, {"train.tar": tar(inner)})


def some_zips(root: Path) -> Path:
    with pytest.warns(UserWarning, match="Duplicate name"):
        data = zipped([*NAMES, NAMES[3], NAMES[8]])
    return write(root, {"z.zip": data, "damaged.zip": b"none"})


def some_tables(root: Path) -> Path:
    root.mkdir()
    for part in range(2):
        images = [{"bytes": b"x", "path": f"{n}.png"} for n in range(25)]
        labels = [("dog", "cat", None)[n % 3] for n in range(25)]
        pq.write_table(pa.table({"image": images, "label": labels}), root / f"{part}.parquet", row_group_size=10)
    return root


SHARDS = {
    "manifest": "23536caa14f29423",
    "rejects.jsonl": "3e24f4c73afe3b92",
    "train-000000.index.json": "103271b19be01f04",
    "train-000000.tar": "bf30693a5d05fe78",
    "train-000001.index.json": "26f2224dbf292daf",
    "train-000001.tar": "0f363a7c5b522c4e",
    "validation-000000.index.json": "d556ff28ef45d9a1",
    "validation-000000.tar": "6f33bd196b879386",
}
PLANS = {
    some_files: ("f616197c1c7017da", "78d04a1fcff0120e", "1799efc13888d9a3"),
    imagenet: ("adcc4d85972881ec", "449c2382e3d09ccf", "e3b0c44298fc1c14"),
    some_tars: ("b2c5d3c75a978f47", "0dba2155d9b60ac9", "76b31c9bc4bbe0c8"),
    nested_tars: ("d612a76ae1c97f1b", "ae423aec4d0a2e29", "e3b0c44298fc1c14"),
    some_zips: ("a932dc64e0653755", "c52d8af4e75193f9", "e3b0c44298fc1c14"),
    some_tables: ("4796949761ac65ad", "f14c9c1c95e815b2", "e3b0c44298fc1c14"),
}


@pytest.mark.parametrize(("make", "pinned"), PLANS.items(), ids=[make.__name__ for make in PLANS])
def test_plans_are_as_before(make, pinned: tuple[str, str, str], tmp_path: Path) -> None:
    assert digests(make(tmp_path / "source"), tmp_path) == pinned


@pytest.mark.parametrize(("make", "pinned"), PLANS.items(), ids=[make.__name__ for make in PLANS])
def test_plans_do_not_depend_on_how_the_work_is_divided(
    make, pinned: tuple[str, str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for where in (items, listed_parts):
        monkeypatch.setattr(where, "PART_ITEMS", 4)
    monkeypatch.setattr(buckets, "_TASK_RECORDS", 3)
    monkeypatch.setattr(spool, "_MEMORY_BYTES", 100)
    assert digests(make(tmp_path / "source"), tmp_path) == pinned


@pytest.mark.parametrize("make", [imagenet, some_tars, some_tables], ids=lambda make: make.__name__)
def test_plans_are_the_same_in_ray_tasks(
    make, tmp_path: Path, ray_session: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listed_parts, "PART_ITEMS", 16)
    monkeypatch.setattr(buckets, "_TASK_RECORDS", 12)
    assert digests(make(tmp_path / "source"), tmp_path) == PLANS[make]


def digests(source: Path, folder: Path) -> tuple[str, str, str]:
    """Of the lines of a source's plan, of the plan itself, and of what is ignored."""
    config = PrepareConfig(
        source=str(source),
        out=str(folder / "out"),
        stages=("8-16",),
        validation_fraction=0.2,
        test_fraction=0.01,
        samples_per_shard=7,
        seed=5,
    )
    found = open_source(config.source)
    plan, lines = plan_shards(config, found)
    ignored = "".join(f"{name} {reason}" for name, reason in found.ignored)
    return digest(bytes(lines)), digest(repr(plan).encode()), digest(ignored.encode())


def test_the_plan_of_an_addition_is_as_before(tmp_path: Path) -> None:
    config = PrepareConfig(
        source=str(some_files(tmp_path / "source")),
        out=str(tmp_path / "out"),
        stages=("8-16",),
        validation_fraction=0.2,
        samples_per_shard=7,
    )
    plan, lines = plan_shards(config, open_source(config.source))
    write_plan(config, plan, lines)
    write(tmp_path / "source", {f"a/new {n}.png": b"x" for n in range(20)})
    found = plan_addition(config, open_source(config.source), plan)
    assert found is not None
    extended, added = found
    assert (digest(bytes(added)), digest(repr(extended).encode())) == ("bebe40cdd6b098de", "23f23f7283b91833")


def test_shards_indices_and_manifests_are_as_before(photos: Path, tmp_path: Path) -> None:
    source = some_photos(photos, tmp_path / "photos", 7)
    (source / "broken.jpg").write_bytes(b"<html>404</html>")
    config = PrepareConfig(
        source=str(source),
        out=str(tmp_path / "out"),
        stages=("16-64",),
        validation_fraction=0.3,
        samples_per_shard=4,
        blur_variants=1,
    )
    folder = prepared_without_ray(config)
    plan = load_own_plan(config)
    write_manifest(config, plan, config.stage_specs[0], stages_of(config)["16-64"])
    manifest = json.loads((folder / "manifest.json").read_bytes())
    del manifest["provenance"]
    files = {path.name: digest(path.read_bytes()) for path in folder.iterdir() if path.name != "manifest.json"}
    assert files | {"manifest": digest(json.dumps(manifest).encode())} == SHARDS
