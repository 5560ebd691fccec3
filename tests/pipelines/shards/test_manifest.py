"""Manifests and indices read back as they were written; other versions and damage are refused with a remedy."""

import json
from dataclasses import replace

import pytest

from pipelines.images.rejects import Reject, RejectReason
from pipelines.settings.stages import parse_stages
from pipelines.shards.manifest import (
    FORMAT_VERSION,
    Manifest,
    ShardEntry,
    ShardIndex,
    count_rejects,
    load_index,
    load_manifest,
    save_index,
    save_manifest,
)
from sr3core.errors import DataError, StorageError

REJECTS = (Reject("a.jpg", RejectReason.EMPTY, "the file is empty"), Reject("ü\n.png", RejectReason.ANIMATED, "2"))
INDEX = ShardIndex(
    shard="train-000000.tar",
    fingerprint="f",
    plan="p",
    num_bytes=10,
    sha256="s",
    keys=("k", "l"),
    members=({"hr.png": (512, 3)}, {"hr.png": (1536, 4), "cls": (2560, 1)}),
    digests=("d", "e"),
    names=("n", "caf\udce9"),
    labels=(None, 3),
    rejects=REJECTS,
    excluded={"again": "n"},
)
MANIFEST = Manifest(
    format_version=FORMAT_VERSION,
    stage=parse_stages("8-16")[0],
    splits={"train": (INDEX.entry, ShardEntry("train-000001.tar", 5, 20, "t")), "validation": (), "test": ()},
    provenance={"seed": 3},
    fingerprint="f",
    num_rejects=count_rejects(REJECTS),
    rejects=REJECTS,
    num_classes=4,
    num_unlabelled=1,
)


def test_they_read_back_as_they_were_written(tmp_path):
    save_manifest(str(tmp_path), MANIFEST)
    assert load_manifest(str(tmp_path)) == MANIFEST
    assert MANIFEST.num_samples("train") == 7
    assert MANIFEST.num_samples("test") == 0
    assert MANIFEST.num_rejects == {"animated": 1, "empty": 1}
    save_index(str(tmp_path), INDEX)
    assert load_index(str(tmp_path), INDEX.shard) == INDEX


def test_files_from_before_labels_were_noted_are_read(tmp_path):
    save_manifest(str(tmp_path), MANIFEST)
    save_index(str(tmp_path), INDEX)
    for name, keys in (("manifest.json", ("num_classes", "num_unlabelled")), ("train-000000.index.json", ("label",))):
        data = json.loads((tmp_path / name).read_text())
        for row in (data, *data.get("samples", ())):
            for key in keys:
                row.pop(key, None)
        (tmp_path / name).write_text(json.dumps(data))
    assert load_manifest(str(tmp_path)) == replace(MANIFEST, num_classes=0, num_unlabelled=0)
    assert load_index(str(tmp_path), INDEX.shard) == replace(INDEX, labels=(None, None))


def load(directory, name):
    return load_manifest(str(directory)) if name == "manifest.json" else load_index(str(directory), INDEX.shard)


@pytest.mark.parametrize("name", ["manifest.json", "train-000000.index.json"])
def test_another_format_version_and_damage_are_refused(tmp_path, name):
    save_manifest(str(tmp_path), MANIFEST)
    save_index(str(tmp_path), INDEX)
    data = json.loads((tmp_path / name).read_text())
    (tmp_path / name).write_text(json.dumps({**data, "format_version": 99}))
    with pytest.raises(DataError, match=r"format version 99, this program reads 1; .*prepare the images again, into"):
        load(tmp_path, name)
    (tmp_path / name).write_text(json.dumps({**data, "rejects": [{"path": "a"}]}))
    with pytest.raises(DataError, match=rf"{name} is not a valid .*delete it and run `sr3 prepare` again"):
        load(tmp_path, name)
    (tmp_path / name).write_text(json.dumps(data)[:-5])
    with pytest.raises(DataError, match=rf"{name} is damaged .*delete it and run `sr3 prepare` again"):
        load(tmp_path, name)


def test_a_missing_manifest_is_an_unfinished_preparation_and_a_missing_index_a_storage_error(tmp_path):
    with pytest.raises(DataError, match=r"holds no manifest.json: run `sr3 prepare` until it has finished"):
        load_manifest(str(tmp_path))
    with pytest.raises(StorageError, match=r"train-000000.index.json: No such file"):
        load_index(str(tmp_path), INDEX.shard)
