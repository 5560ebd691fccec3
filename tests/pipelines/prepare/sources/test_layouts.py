"""Folders as their publishers lay them out: which images are taken, and how they are labelled."""

from pathlib import Path

import pytest

from pipelines.prepare.sources.imagenet_classes import SYNSET_OF_ILSVRC_ID
from pipelines.prepare.sources.listing import open_source
from sr3core.errors import ConfigError, DataError
from tests.pipelines.prepare.source_files import bytes_of, labels_of, picture, write
from tests.pipelines.prepare.source_trees import Content, as_folder, as_tar, as_zip

TENCH, GOLDFISH, SEA_SNAKE = "n01440764", "n01443537", "n01751748"


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


def test_imagenet_folder_a_synset(tmp_path: Path) -> None:
    files = {f"train/{synset}/{synset}_{i}.JPEG": picture(i, "JPEG") for synset in (TENCH, GOLDFISH) for i in range(2)}
    source = open_source(str(write(tmp_path, files)))
    assert source.layout == "imagenet"
    assert labels_of(source)[f"train/{GOLDFISH}/{GOLDFISH}_1.JPEG"] == (1, GOLDFISH)
    assert bytes_of(source) == files
    beyond = open_source(str(write(tmp_path / "21k", {"n00007846/x.JPEG": picture(0, "JPEG")})))
    assert labels_of(beyond) == {"n00007846/x.JPEG": (None, "n00007846")}


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


@pytest.mark.parametrize("place", ["", "val/", "devkit/data/", "../"])
@pytest.mark.parametrize("kind", ["folder", "zip", "tar", "folder of zips"])
def test_imagenet_validation_in_any_container(tmp_path: Path, kind: str, place: str) -> None:
    """The labels lie in the source or beside it; a rule goes by names, whatever holds them."""
    images: dict[str, Content] = {f"val/ILSVRC2012_val_{i:08d}.JPEG": picture(i, "JPEG") for i in (1, 2)}
    truth: dict[str, Content] = {f"{place}ILSVRC2012_validation_ground_truth.txt".removeprefix("../"): b"490\n449\n"}
    inside = images if place == "../" else images | truth
    if place == "../":
        as_folder(tmp_path, truth)
    source = tmp_path / "source"
    if kind == "folder":
        as_folder(source, inside)
    elif kind == "folder of zips":
        as_folder(source, {"val.zip": as_zip(images)} | (truth if place != "../" else {}))
    else:
        source = tmp_path / f"source.{kind}"
        source.write_bytes(as_zip(inside) if kind == "zip" else as_tar(inside))
    for layout in ("auto", "imagenet"):
        found = open_source(str(source), layout)
        assert [(item.label, item.synset) for item in found.items] == [(65, SEA_SNAKE), (0, TENCH)]
        assert found.layout.endswith("imagenet")


@pytest.mark.parametrize("kind", ["folder", "zip", "tar"])
def test_images_without_classes_among_labelled_ones_are_refused_in_any_container(tmp_path: Path, kind: str) -> None:
    tree: dict[str, Content] = {
        f"train/{TENCH}/{TENCH}_1.JPEG": picture(0, "JPEG"),
        "val/ILSVRC2012_val_00000001.JPEG": picture(1, "JPEG"),
    }
    source = tmp_path / (f"source.{kind}" if kind != "folder" else "source")
    if kind == "folder":
        as_folder(source, tree)
    else:
        source.write_bytes(as_zip(tree) if kind == "zip" else as_tar(tree))
    with pytest.raises(DataError, match=r"without their classes.*--layout folder"):
        open_source(str(source))
    assert len(open_source(str(source), "folder").items) == 2


def test_a_damaged_list_of_labels_is_named(tmp_path: Path) -> None:
    data = bytearray(as_zip({"ILSVRC2012_val_00000001.JPEG": picture(1, "JPEG"), "val.txt": b"490 490 490"}))
    data[data.index(b"490 490")] ^= 1
    (tmp_path / "z.zip").write_bytes(data)
    with pytest.raises(DataError, match=r"^val\.txt: .*checksum is wrong"):
        open_source(str(tmp_path / "z.zip"))


def test_imagenet_validation_without_its_classes(tmp_path: Path) -> None:
    folder = write(tmp_path / "val", {"ILSVRC2012_val_00000001.JPEG": picture(0, "JPEG")})
    assert open_source(str(folder)).layout == "folder"
    with pytest.raises(DataError, match=r"without their classes"):
        open_source(str(folder), "imagenet")
    with pytest.raises(ConfigError, match=r"named after a synset"):
        open_source(str(write(tmp_path / "plain", {"x.png": picture(1)})), "imagenet")
