"""Zip, tar and parquet: what is listed in them, and that every image reads back or is named."""

import io
import json
import tarfile
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.images.decoding import decode_image
from pipelines.images.file_names import IgnoreReason
from pipelines.images.rejects import DecodeError, RejectReason
from pipelines.prepare.sources.listing import open_source, read_item
from sr3core.errors import ConfigError, DataError
from tests.pipelines.prepare.source_files import bytes_of, labels_of, picture, rejected, tar, write

TENCH, GOLDFISH = "n01440764", "n01443537"


def test_imagenet_tar_of_tars(tmp_path: Path) -> None:
    inner = {s: {f"{s}_{i}.JPEG": picture(i + 7 * len(s), "JPEG") for i in range(2)} for s in (TENCH, GOLDFISH)}
    outer = tar({f"{synset}.tar": tar(files) for synset, files in inner.items()})
    path = write(tmp_path, {"ILSVRC2012_img_train.tar": outer}) / "ILSVRC2012_img_train.tar"
    source = open_source(str(path))
    assert labels_of(source)[f"{GOLDFISH}.tar/{GOLDFISH}_0.JPEG"] == (1, GOLDFISH)
    assert bytes_of(source) == {f"{s}.tar/{name}": data for s, files in inner.items() for name, data in files.items()}


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_stylegan_zip(tmp_path: Path, compression: int) -> None:
    files = {f"0000{i}/img0000000{i}.png": picture(i) for i in range(3)}
    labels = {"labels": [[name, index] for index, name in enumerate(files)]}
    with zipfile.ZipFile(tmp_path / "ffhq.zip", "w", compression) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
        archive.writestr("dataset.json", json.dumps(labels))
    source = open_source(str(tmp_path / "ffhq.zip"))
    assert source.layout == "zip"
    assert bytes_of(source) == files
    assert [item.label for item in source.items] == [0, 1, 2]
    assert [name for name, _ in source.ignored] == ["dataset.json"]
    in_folder = open_source(str(tmp_path))
    assert set(bytes_of(in_folder)) == {f"ffhq.zip/{name}" for name in files}


def test_zip_members_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    path = tmp_path / "bad.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("a.png", "../evil.png", "c.png"):
            archive.writestr(name, picture(len(name)))
        archive.writestr("d.png", picture(7), compress_type=zipfile.ZIP_LZMA)
    data = bytearray(path.read_bytes())
    data[data.index(picture(5)) + 20] ^= 1
    path.write_bytes(data)
    source = open_source(str(path))
    assert rejected(source, "a.png").reason == RejectReason.CORRUPT
    assert rejected(source, "d.png").reason == RejectReason.UNREADABLE
    assert read_item(source.uri, next(i for i in source.items if i.name == "../evil.png")) == picture(11)


def test_webdataset_tars(tmp_path: Path) -> None:
    samples = {f"{i:04d}": {"jpg": picture(i, "JPEG"), "cls": b"%d" % i, "json": b"{}"} for i in range(4)}
    for shard, keys in enumerate((["0000", "0001"], ["0002", "0003"])):
        members = {f"{key}.{name}": data for key in keys for name, data in samples[key].items()}
        write(tmp_path, {f"data-{shard:06d}.tar": tar(members)})
    source = open_source(str(tmp_path))
    assert source.layout == "tar"
    assert {item.name: item.label for item in source.items} == {
        f"data-{i // 2:06d}.tar/{i:04d}.jpg": i for i in range(4)
    }
    assert bytes_of(source)["data-000001.tar/0002.jpg"] == samples["0002"]["jpg"]
    reasons = {"cls": IgnoreReason.CLASS_LABEL, "json": IgnoreReason.NOT_AN_IMAGE_NAME}
    assert dict(source.ignored) == {
        f"data-{i // 2:06d}.tar/{i:04d}.{end}": reason for i in range(4) for end, reason in reasons.items()
    }


def test_our_own_shards_as_a_source_give_their_high_resolution_images(tmp_path: Path) -> None:
    members = {"k.hr.png": picture(0), "k.lr.png": picture(1), "k.lr_blur0.png": picture(2), "k.json": b"{}"}
    path = write(tmp_path, {"train-000000.tar": tar(members)}) / "train-000000.tar"
    assert [item.name for item in open_source(str(path)).items] == ["k.hr.png"]


def test_a_name_that_a_tar_holds_twice_is_rejected_once(tmp_path: Path) -> None:
    path = tmp_path / "twice.tar"
    with tarfile.open(path, "w") as archive:
        for seed in (1, 2):
            info = tarfile.TarInfo("x.png")
            info.size = len(picture(seed))
            archive.addfile(info, io.BytesIO(picture(seed)))
    source = open_source(str(path))
    assert read_item(source.uri, source.items[0]) == picture(1)
    with pytest.raises(DecodeError) as caught:
        read_item(source.uri, source.items[1])
    assert caught.value.reason == RejectReason.DUPLICATE


@pytest.mark.parametrize("cut", [700, 1536, 2000, 2600])
def test_a_truncated_tar_gives_what_is_whole_and_names_the_rest(tmp_path: Path, cut: int) -> None:
    whole = tar({f"{i}.png": picture(i) for i in range(3)})
    write(tmp_path, {"cut.tar": whole[:cut], "good.tar": tar({"g.png": picture(9)})})
    source = open_source(str(tmp_path))
    taken, damaged = 0, 0
    for item in source.items:
        try:
            decode_image(read_item(source.uri, item))
            taken += 1
        except DecodeError as error:
            assert error.reason == RejectReason.UNREADABLE  # noqa: PT017
            damaged += 1
    assert taken == 1 + sum(cut >= 512 + 1024 * i + len(picture(i)) for i in range(3))
    assert damaged >= 1


def test_damaged_archives_are_named(tmp_path: Path) -> None:
    for kind in ("zip", "tar", "parquet"):
        folder = write(tmp_path / kind, {f"bad.{kind}": b"nothing of the kind" * 100})
        with pytest.raises(DataError, match=rf"'bad.{kind}': not a readable {kind} file"):
            open_source(str(folder))


def huggingface_parquet(path: Path, images: list[dict], labels: list[int] | None = None, rows: int = 2) -> None:
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    columns = {"image": pa.array(images, struct)}
    if labels is not None:
        columns["label"] = pa.array(labels, pa.int64())
    pq.write_table(pa.table(columns), path, row_group_size=rows)


def test_huggingface_parquet(tmp_path: Path) -> None:
    images = [{"bytes": picture(i), "path": f"{i}.png"} for i in range(5)]
    huggingface_parquet(tmp_path / "train-00000-of-00001.parquet", images, [4, 3, 2, 1, 0])
    source = open_source(str(tmp_path))
    assert source.layout == "parquet"
    assert list(bytes_of(source).values()) == [picture(i) for i in range(5)]
    assert [item.label for item in source.items] == [4, 3, 2, 1, 0]
    assert source.items[2].name == "train-00000-of-00001.parquet#00001-000000:2.png"


def test_parquet_of_plain_bytes_and_of_missing_bytes(tmp_path: Path) -> None:
    pq.write_table(pa.table({"jpg": [picture(0), None]}), tmp_path / "plain.parquet")
    source = open_source(str(tmp_path / "plain.parquet"))
    assert read_item(source.uri, source.items[0]) == picture(0)
    assert rejected(source, source.items[1].name).reason == RejectReason.UNREADABLE
    huggingface_parquet(tmp_path / "paths.parquet", [{"bytes": None, "path": "elsewhere.png"}])
    paths = open_source(str(tmp_path / "paths.parquet"))
    assert rejected(paths, paths.items[0].name).reason == RejectReason.UNREADABLE
    pq.write_table(pa.table({"text": ["no image"]}), tmp_path / "text.parquet")
    with pytest.raises(ConfigError, match=r"no column that is known to be one of images, among text.*--image-column"):
        open_source(str(tmp_path / "text.parquet"))
