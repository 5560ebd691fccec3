"""Layouts of image folders: plain, one folder per class, and those of FFHQ, ImageNet and CelebA-HQ."""

import csv
import io
import re
from collections.abc import Callable, Iterable

from pipelines.images.file_names import MAX_FILE_BYTES, is_image_name
from pipelines.prepare.sources.imagenet_classes import CLASS_INDEX, SYNSET_OF_ILSVRC_ID
from pipelines.prepare.sources.items import Source, SourceItem, in_order
from pipelines.storage.uris import exists, join, name_of, parent_of, read_bytes
from sr3core.errors import ConfigError, DataError

_FFHQ_ALIGNED = ("images1024x1024", "thumbnails128x128")  # the first that exists is taken, never both
_FFHQ_WILD = "in-the-wild-images"
_SYNSET = re.compile(r"n\d{8}")
_VALIDATION = re.compile(r"ILSVRC2012_val_(\d{8})\.")
_GROUND_TRUTHS = (
    "LOC_val_solution.csv",
    "val.txt",
    "ILSVRC2012_validation_ground_truth.txt",
    "data/ILSVRC2012_validation_ground_truth.txt",
    "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt",
)
_CELEBA_SIZES = re.compile(r"(?:data|celeba[_-]?hq[_-]?)(\d+)(?:x\1)?", re.IGNORECASE)


def detect(uri: str, names: Iterable[str]) -> str | None:
    """Detect a folder's layout from its names: "ffhq", "imagenet", "celebahq", "folder", or None without images."""
    images = [name for name in names if is_image_name(name)]
    if not images:
        return None
    folders = {part for name in images for part in name.split("/")[:-1]} | {name_of(uri)}
    if folders & {*_FFHQ_ALIGNED, _FFHQ_WILD}:
        return "ffhq"
    if "CelebA-HQ-img" in folders or any("celeba" in folder.lower() and "hq" in folder.lower() for folder in folders):
        return "celebahq"
    if any(_SYNSET.fullmatch(folder) for folder in folders):
        return "imagenet"
    if _VALIDATION.match(images[0].rpartition("/")[2]) and _find_ground_truth(uri) is not None:
        return "imagenet"
    return "folder"


def list_layout(uri: str, layout: str, files: dict[str, int]) -> Source:
    """List the images of a folder by its layout.

    Args:
        uri: the folder.
        layout: "folder", "imagefolder", "ffhq", "imagenet" or "celebahq".
        files: name relative to uri -> size.

    Raises:
        DataError: FFHQ's in-the-wild photos, which are not aligned.
        ConfigError: the folder is not of that layout.
    """
    images = sorted(name for name in files if is_image_name(name))
    listings: dict[str, Callable[[str, list[str]], list[SourceItem]]] = {
        "folder": lambda _, names: [SourceItem(name, name) for name in names],
        "imagefolder": _list_imagefolder,
        "ffhq": _list_ffhq,
        "imagenet": _list_imagenet,
        "celebahq": _list_celebahq,
    }
    items = [_checked(item, files[item.path]) for item in listings[layout](uri, images)]
    taken = {item.path for item in items}
    return Source(uri, layout, in_order(items), sorted(files.keys() - taken))


def _checked(item: SourceItem, size: int) -> SourceItem:
    return (
        item
        if size <= MAX_FILE_BYTES
        else item._replace(how="damaged", problem=f"{size} bytes are more than {MAX_FILE_BYTES}")
    )


def _list_imagefolder(uri: str, names: list[str]) -> list[SourceItem]:
    """Label each image with the alphabetical rank of its top folder among all top folders."""
    loose = [name for name in names if "/" not in name]
    if loose:
        raise ConfigError(
            f"layout: {uri} holds {len(loose)} images outside of any class's folder, such as {loose[0]}; imagefolder"
            " needs one folder per class and no images beside them"
        )
    folders = [name.partition("/")[0] for name in names]
    index = {folder: number for number, folder in enumerate(sorted(set(folders)))}
    return [
        SourceItem(name, name, label=index[folder], synset=folder) for name, folder in zip(names, folders, strict=True)
    ]


def _list_ffhq(uri: str, names: list[str]) -> list[SourceItem]:
    """Take FFHQ's 1024x1024 images, or else its thumbnails; a mixture would hold every face twice."""
    for folder in _FFHQ_ALIGNED:
        taken = names if name_of(uri) == folder else [n for n in names if folder in n.split("/")[:-1]]
        if taken:
            return [SourceItem(name, name) for name in taken]
    if name_of(uri) == _FFHQ_WILD or any(_FFHQ_WILD in name.split("/") for name in names):
        raise DataError(
            f"source: {uri} holds FFHQ's in-the-wild images: uncropped photos whose faces are not aligned, on which"
            " SR3's face models are not trained. Use FFHQ's images1024x1024 or thumbnails128x128, add --align-faces"
            " to align them here, or give --layout folder to use them as plain photos"
        )
    raise ConfigError(
        f"layout: {uri} has none of FFHQ's folders ({', '.join(_FFHQ_ALIGNED)}); use --layout auto or folder"
    )


def _list_celebahq(uri: str, names: list[str]) -> list[SourceItem]:
    """Take CelebA-HQ without its segmentation masks; of several resolutions, take the largest."""
    photos = [name for name in names if not any("mask-anno" in part for part in name.split("/")[:-1])]
    sizes = {name: _celeba_size(name) for name in photos}
    largest = max(sizes.values(), default=0)
    return [SourceItem(name, name) for name in photos if sizes[name] == largest]


def _celeba_size(name: str) -> int:
    matches = [match for part in name.split("/")[:-1] if (match := _CELEBA_SIZES.fullmatch(part))]
    return int(matches[-1][1]) if matches else 0


def _list_imagenet(uri: str, names: list[str]) -> list[SourceItem]:
    """Label ImageNet's images with class index and WordNet id, by folder, file name or ground-truth file."""
    truth: dict[int, str] | None = None
    items = []
    for name in names:
        synset = synset_in(name)
        validation = _VALIDATION.match(name.rpartition("/")[2])
        if synset is None and validation:
            truth = _read_ground_truth(uri) if truth is None else truth
            synset = truth.get(int(validation[1]))
        items.append(SourceItem(name, name, label=CLASS_INDEX.get(synset or ""), synset=synset))
    if not any(item.synset for item in items):
        raise ConfigError(
            f"layout: {uri} has no folder or file named after a synset (n01440764); use --layout auto or folder"
        )
    return items


def synset_in(name: str) -> str | None:
    """The WordNet id in a path: the last folder that is one, or the start of the file name (n01440764_10026.JPEG)."""
    *folders, file = name.split("/")
    for part in (*reversed(folders), file.split(".")[0].split("_")[0]):
        if _SYNSET.fullmatch(part):
            return part
    return None


def _find_ground_truth(uri: str) -> str | None:
    for folder in (uri, parent_of(uri)):
        for name in _GROUND_TRUTHS:
            if exists(path := join(folder, *name.split("/"))):
                return path
    return None


def _read_ground_truth(uri: str) -> dict[int, str]:
    """Read number of validation image -> WordNet id, from any of the kinds of file that state it.

    Raises:
        DataError: there is no such file, or it is damaged.
    """
    path = _find_ground_truth(uri)
    if path is None:
        raise DataError(
            f"source: {uri} holds ImageNet's validation images without their classes; put"
            " ILSVRC2012_validation_ground_truth.txt, LOC_val_solution.csv or val.txt into it or beside it,"
            " or give --layout folder to do without classes"
        )
    lines = read_bytes(path).decode("utf-8", "replace").splitlines()
    try:
        if path.endswith(".csv"):  # ILSVRC2012_val_00048981,n03995372 85 1 499 272
            rows = [row for row in csv.reader(io.StringIO("\n".join(lines))) if row and row[0] != "ImageId"]
            return {_number(row[0]): row[1].split()[0] for row in rows}
        if name_of(path) == "val.txt":  # ILSVRC2012_val_00000001.JPEG 65
            synsets = list(CLASS_INDEX)
            return {_number(line.split()[0]): synsets[int(line.split()[1])] for line in lines if line.strip()}
        return {number: SYNSET_OF_ILSVRC_ID[int(line)] for number, line in enumerate(lines, start=1)}
    except (ValueError, IndexError, KeyError) as error:
        raise DataError(f"{path}: not a ground-truth file of ImageNet's validation set ({error!r})") from error


def _number(name: str) -> int:
    match = _VALIDATION.match(name + ".")
    if match is None:
        raise ValueError(name)
    return int(match[1])
