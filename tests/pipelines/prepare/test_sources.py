"""Each kind of source, built from real bytes: what is found in it, how it is labelled, and that its bytes come back."""

import csv
import hashlib
import io
import json
import os
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipelines.images.decoding import decode_image
from pipelines.images.rejects import DecodeError, RejectReason
from pipelines.prepare.imagenet_classes import CLASS_INDEX, SYNSET_OF_ILSVRC_ID
from pipelines.prepare.source_items import Source, SourceItem
from pipelines.prepare.sources import open_source, read_item
from sr3core.errors import ConfigError, DataError


def picture(seed: int, kind: str = "PNG") -> bytes:
    """A small valid image, different for every seed."""
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def write(root: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


def tar(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def bytes_of(source: Source) -> dict[str, bytes]:
    return {item.name: read_item(source.uri, item) for item in source.items}


def labels_of(source: Source) -> dict[str, tuple[int | None, str | None]]:
    return {item.name: (item.label, item.synset) for item in source.items}


def rejected(source: Source, name: str) -> DecodeError:
    item = next(item for item in source.items if item.name == name)
    with pytest.raises(DecodeError) as caught:
        read_item(source.uri, item)
    return caught.value


# --- folders ----------------------------------------------------------------------------------------------------------


def test_folder_tree(tmp_path: Path) -> None:
    files = {f"{folder}/{i}.png": picture(i) for folder in ("a", "a/b", "c") for i in range(2)}
    source = open_source(str(write(tmp_path, {**files, "README.txt": b"hello", "a/labels.csv": b"x"})))
    assert source.layout == "folder"
    assert bytes_of(source) == files
    assert source.ignored == ["README.txt", "a/labels.csv"]
    assert [item.name for item in source.items] == sorted(files)


def test_names_that_break_things(tmp_path: Path) -> None:
    names = [
        *(
            "with space.png",
            "ünï/çødé 日本.png",
            "new\nline.png",
            "..dots..png",
            "quote\"'.png",
            "-dash.png",
            "%41.png",
        ),
        *("trailing .PNG", "a\tb.JpEg", "emoji🙂.webp", "back\\slash.png", "*.png", "$HOME.png", "{0..1}.png"),
    ]
    files = {name: picture(i) for i, name in enumerate(names)}
    write(tmp_path, files)
    latin = os.fsencode(tmp_path) + b"/caf\xe9.png"  # no valid UTF-8
    with open(latin, "wb") as file:
        file.write(picture(99))
    found = bytes_of(open_source(str(tmp_path)))
    assert found == {**files, os.fsdecode(b"caf\xe9.png"): picture(99)}


def test_links_are_followed_once_and_broken_ones_named(tmp_path: Path) -> None:
    write(tmp_path / "real", {"x.png": picture(0)})
    source_folder = write(tmp_path / "source", {"y.png": picture(1)})
    (source_folder / "link").symlink_to(tmp_path / "real")
    (source_folder / "loop").symlink_to(source_folder)
    (source_folder / "gone.png").symlink_to(tmp_path / "nowhere.png")
    source = open_source(str(source_folder))
    assert [item.name for item in source.items] == ["gone.png", "link/x.png", "y.png"]
    assert rejected(source, "gone.png").reason == RejectReason.UNREADABLE


def test_a_file_that_vanishes_is_named(tmp_path: Path) -> None:
    source = open_source(str(write(tmp_path, {"x.png": picture(0)})))
    (tmp_path / "x.png").unlink()
    assert rejected(source, "x.png").reason == RejectReason.UNREADABLE


def test_no_source_and_no_images(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"does not exist; name a folder"):
        open_source(str(tmp_path / "none"))
    with pytest.raises(DataError, match=r"it is empty"):
        open_source(str(tmp_path))
    write(tmp_path, {"notes.txt": b"x"})
    with pytest.raises(DataError, match=r"holds no images .*1 other files such as 'notes.txt'"):
        open_source(str(tmp_path))
    with pytest.raises(DataError, match=r"decompress it"):
        open_source(str(write(tmp_path, {"x.tar.gz": b"x"}) / "x.tar.gz"))
    with pytest.raises(DataError, match=r"not be read image by image|cannot be read image by image"):
        open_source(str(tmp_path / "notes.txt"))


# --- FFHQ, CelebA-HQ --------------------------------------------------------------------------------------------------


def test_ffhq_takes_the_aligned_images_and_never_the_thumbnails_too(tmp_path: Path) -> None:
    aligned = {f"images1024x1024/00000/0000{i}.png": picture(i) for i in range(3)}
    others = {f"{folder}/00000/00000.png": picture(9) for folder in ("thumbnails128x128", "in-the-wild-images")}
    source = open_source(str(write(tmp_path, {**aligned, **others, "ffhq-dataset-v2.json": b"{}"})))
    assert source.layout == "ffhq"
    assert bytes_of(source) == aligned
    assert len(source.ignored) == 3
    inside = open_source(str(tmp_path / "images1024x1024"))
    assert [item.name for item in inside.items] == [f"00000/0000{i}.png" for i in range(3)]


def test_ffhq_thumbnails_alone(tmp_path: Path) -> None:
    files = {"thumbnails128x128/00000/00000.png": picture(0)}
    assert bytes_of(open_source(str(write(tmp_path, files)))) == files


def test_ffhq_in_the_wild_is_refused_with_an_explanation(tmp_path: Path) -> None:
    wild = write(tmp_path / "in-the-wild-images", {"00000/00000.png": picture(0)})
    for uri in (wild, tmp_path):
        with pytest.raises(DataError, match=r"not aligned.*images1024x1024.*--layout folder"):
            open_source(str(uri))
    assert len(open_source(str(wild), "folder").items) == 1


def test_a_folder_a_class(tmp_path: Path) -> None:
    root = write(
        tmp_path / "mine", {name: picture(i) for i, name in enumerate(("dog/b.png", "cat/x/a.png", "dog/a.png"))}
    )
    assert open_source(str(root)).layout == "folder", "folders of any names mean nothing unless asked"
    found = open_source(str(root), "imagefolder")
    assert labels_of(found) == {"cat/x/a.png": (0, "cat"), "dog/a.png": (1, "dog"), "dog/b.png": (1, "dog")}
    write(root, {"loose.png": picture(9)})
    with pytest.raises(ConfigError, match=r"1 images outside of any class's folder, such as loose.png"):
        open_source(str(root), "imagefolder")


def test_celebahq_folders(tmp_path: Path) -> None:
    masks = {
        "CelebA-HQ-img/0.jpg": picture(0, "JPEG"),
        "CelebA-HQ-img/1.jpg": picture(1, "JPEG"),
        "CelebAMask-HQ-mask-anno/0/00000_hair.png": picture(2),
    }
    source = open_source(str(write(tmp_path / "CelebAMask-HQ", masks)))
    assert source.layout == "celebahq"
    assert [item.name for item in source.items] == ["CelebA-HQ-img/0.jpg", "CelebA-HQ-img/1.jpg"]
    stargan = {f"celeba_hq/{split}/{sex}/0.jpg": picture(3, "JPEG") for split in ("train", "val") for sex in "mf"}
    assert bytes_of(open_source(str(write(tmp_path / "stargan", stargan)))) == stargan
    sizes = {f"celeba-hq/data{size}x{size}/0.jpg": picture(size, "JPEG") for size in (64, 1024, 256)}
    largest = open_source(str(write(tmp_path / "sizes", sizes)))
    assert [item.name for item in largest.items] == ["celeba-hq/data1024x1024/0.jpg"]


# --- ImageNet ---------------------------------------------------------------------------------------------------------

TENCH, GOLDFISH, SEA_SNAKE = "n01440764", "n01443537", "n01751748"


def test_imagenet_classes_are_the_known_ones() -> None:
    assert len(CLASS_INDEX) == len(set(SYNSET_OF_ILSVRC_ID.values())) == 1000
    assert (CLASS_INDEX[TENCH], CLASS_INDEX["n15075141"]) == (0, 999)
    assert SYNSET_OF_ILSVRC_ID[490] == SEA_SNAKE  # class of ILSVRC2012_val_00000001
    assert CLASS_INDEX[SEA_SNAKE] == 65


def test_imagenet_classes_agree_with_labelled_images(shared_data: Path) -> None:
    with open(shared_data / "natural_eval" / "labels.csv", newline="") as file:
        rows = {row["wnid"]: int(row["imagenet_index"]) for row in csv.DictReader(file)}
    assert rows == CLASS_INDEX


def test_imagenet_folder_a_synset(tmp_path: Path) -> None:
    files = {f"train/{synset}/{synset}_{i}.JPEG": picture(i, "JPEG") for synset in (TENCH, GOLDFISH) for i in range(2)}
    source = open_source(str(write(tmp_path, files)))
    assert source.layout == "imagenet"
    assert labels_of(source)[f"train/{GOLDFISH}/{GOLDFISH}_1.JPEG"] == (1, GOLDFISH)
    assert bytes_of(source) == files
    beyond = open_source(str(write(tmp_path / "21k", {"n00007846/x.JPEG": picture(0, "JPEG")})))
    assert labels_of(beyond) == {"n00007846/x.JPEG": (None, "n00007846")}


def test_imagenet_tar_of_tars(tmp_path: Path) -> None:
    inner = {s: {f"{s}_{i}.JPEG": picture(i + 7 * len(s), "JPEG") for i in range(2)} for s in (TENCH, GOLDFISH)}
    outer = tar({f"{synset}.tar": tar(files) for synset, files in inner.items()})
    path = write(tmp_path, {"ILSVRC2012_img_train.tar": outer}) / "ILSVRC2012_img_train.tar"
    source = open_source(str(path))
    assert labels_of(source)[f"{GOLDFISH}.tar/{GOLDFISH}_0.JPEG"] == (1, GOLDFISH)
    assert bytes_of(source) == {f"{s}.tar/{name}": data for s, files in inner.items() for name, data in files.items()}


@pytest.mark.parametrize("kind", ["ground_truth", "devkit", "csv", "val.txt", "beside"])
def test_imagenet_flat_validation(tmp_path: Path, kind: str) -> None:
    names = [f"ILSVRC2012_val_{i:08d}.JPEG" for i in (1, 2, 3)]
    folder = write(tmp_path / "val", {name: picture(i, "JPEG") for i, name in enumerate(names)})
    ids = [490, 449, 450]
    truth = "".join(f"{i}\n" for i in ids).encode()
    table = "ImageId,PredictionString\n" + "".join(
        f"{name[:-5]},{SYNSET_OF_ILSVRC_ID[i]} 85 1 499 272\n" for name, i in zip(names, ids, strict=True)
    )
    where = {
        "ground_truth": ("val/ILSVRC2012_validation_ground_truth.txt", truth),
        "devkit": ("val/ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt", truth),
        "csv": ("LOC_val_solution.csv", table.encode()),
        "val.txt": (
            "val/val.txt",
            b"".join(b"%s %d\n" % (n.encode(), c) for n, c in zip(names, [65, 0, 1], strict=True)),
        ),
        "beside": ("ILSVRC2012_validation_ground_truth.txt", truth),
    }
    write(tmp_path, dict([where[kind]]))
    source = open_source(str(folder))
    assert labels_of(source) == dict(zip(names, [(65, SEA_SNAKE), (0, TENCH), (1, GOLDFISH)], strict=True))


def test_imagenet_validation_without_its_classes(tmp_path: Path) -> None:
    folder = write(tmp_path / "val", {"ILSVRC2012_val_00000001.JPEG": picture(0, "JPEG")})
    assert open_source(str(folder)).layout == "folder"
    with pytest.raises(DataError, match=r"without their classes"):
        open_source(str(folder), "imagenet")
    with pytest.raises(ConfigError, match=r"named after a synset"):
        open_source(str(write(tmp_path / "plain", {"x.png": picture(1)})), "imagenet")


# --- zip, tar, parquet ------------------------------------------------------------------------------------------------


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
    assert source.ignored == ["dataset.json"]
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
        with pytest.raises(DataError, match=rf"bad.{kind}.*{kind}"):
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
    with pytest.raises(DataError, match=r"no column of images among"):
        open_source(str(tmp_path / "text.parquet"))


def test_items_survive_the_plan_as_json() -> None:
    item = SourceItem("n\udce9\n.png", "p", "deflated", 3, 4, 5, 6, "n01440764")
    assert SourceItem(*json.loads(json.dumps(item))) == item
    assert hashlib.sha256(item.name.encode("utf-8", "surrogateescape")).hexdigest()
