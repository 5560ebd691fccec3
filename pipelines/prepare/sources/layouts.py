"""Layouts of sources: which images are taken and how they are labelled, by their names alone.

The same rules hold for folders, for archives and for buckets: plain, one folder per class, and the layouts of FFHQ,
ImageNet and CelebA-HQ.
"""

import csv
import io
import itertools
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial

from pipelines.images.rejects import DecodeError
from pipelines.prepare.sources.imagenet_classes import CLASS_INDEX, SYNSET_OF_ILSVRC_ID
from pipelines.prepare.sources.items import SourceItem
from pipelines.storage.uris import exists, join, name_of, parent_of, read_bytes
from sr3core.errors import ConfigError, DataError

_FFHQ_ALIGNED = ("images1024x1024", "thumbnails128x128")  # the first that exists is taken, never both
_FFHQ_WILD = "in-the-wild-images"
_ARCHIVE_END = re.compile(r"\.(?:zip|tar)$", re.IGNORECASE)
_SYNSET = re.compile(r"n\d{8}")
_VALIDATION_START = "ILSVRC2012_val_"  # looked for first, since sources have millions of names
_VALIDATION = re.compile(rf"{_VALIDATION_START}(\d{{8}})\.")
_GROUND_TRUTHS = ("LOC_val_solution.csv", "val.txt", "ILSVRC2012_validation_ground_truth.txt")
_GROUND_TRUTH_FOLDERS = ((), ("data",), ("ILSVRC2012_devkit_t12", "data"))
_CELEBA_SIZES = re.compile(r"(?:data|celeba[_-]?hq[_-]?)(\d+)(?:x\1)?", re.IGNORECASE)


Rule = Callable[[SourceItem], SourceItem | None]
"""Decides by an item's name whether it is taken, and under which label; None leaves it out."""


Texts = Mapping[str, Callable[[], bytes]]
"""Files of a source that are no images, by name, and how to read them."""


def is_label_file(name: str) -> bool:
    """Whether a layout may want a file that is no image: ImageNet's validation labels."""
    return name.rpartition("/")[2] in _GROUND_TRUTHS


class NameSurvey:
    """The names of a source's images, as far as any rule can tell them apart: one for each kind in each folder."""

    def __init__(self) -> None:
        self._first: dict[tuple[str, bool, bool], str] = {}
        self._count: Counter[tuple[str, bool, bool]] = Counter()

    def add(self, names: Iterable[str]) -> None:
        """Take note of names."""
        has_synset: dict[str, bool] = {}
        for name in names:
            folder, _, file = name.rpartition("/")
            known = has_synset.get(folder)
            if known is None:
                known = has_synset[folder] = synset_in(folder + "/") is not None
            key = (folder, known or synset_in(file) is not None, not known and bool(_validation_number(file)))
            if self._count[key] == 0 or name < self._first[key]:
                self._first[key] = name
            self._count[key] += 1

    def merge(self, other: "NameSurvey") -> None:
        """Take note of what another has noted."""
        for key, name in other._first.items():
            self._first[key] = min(name, self._first.get(key, name))
        self._count += other._count

    def names(self) -> dict[str, int]:
        """The first name of each kind, in order -> how many there are of it."""
        return {name: self._count[key] for name, key in sorted((name, key) for key, name in self._first.items())}


def detect(uri: str, names: Collection[str], texts: Texts) -> str:
    """Detect by which rule the images of a source are chosen: "ffhq", "imagenet", "celebahq" or "folder".

    Args:
        uri: the source.
        names: of its images.
        texts: its files of labels, see is_label_file.
    """
    folders = {_plain(name_of(uri)), *(folder for name in names for folder in _folders(name))}
    if folders & {*_FFHQ_ALIGNED, _FFHQ_WILD}:
        return "ffhq"
    if "CelebA-HQ-img" in folders or any("celeba" in folder.lower() and "hq" in folder.lower() for folder in folders):
        return "celebahq"
    if any(_SYNSET.fullmatch(folder) for folder in folders):
        return "imagenet"
    if any(map(_validation_number, names)) and _find_ground_truth(uri, texts) is not None:
        return "imagenet"
    return "folder"


def make_rule(rule: str, uri: str, names: Mapping[str, int], texts: Texts, will_align: bool) -> Rule:
    """The rule that chooses and labels the images of a source.

    Args:
        rule: "folder", "imagefolder", "ffhq", "imagenet" or "celebahq".
        uri: the source.
        names: of its images, see NameSurvey.
        texts: its files of labels, see is_label_file.
        will_align: whether faces will be aligned, so that unaligned ones are what is wanted.

    Raises:
        DataError: FFHQ's in-the-wild photos, which are not aligned; ImageNet's images without their classes.
        ConfigError: the source is not of that layout.
    """
    if rule == "imagefolder":
        return _imagefolder(uri, names)
    if rule == "ffhq":
        return _ffhq(uri, names, will_align)
    if rule == "celebahq":
        return _celebahq(names)
    return _imagenet(uri, names, texts) if rule == "imagenet" else lambda item: item


def _plain(name: str) -> str:
    """An archive's name as the folder that it holds: images1024x1024.zip is images1024x1024."""
    return _ARCHIVE_END.sub("", name)


def _folders(name: str) -> list[str]:
    """The folders of a name, outermost first; an archive counts as one."""
    return [_plain(part) for part in name.split("/")[:-1]]


def _imagefolder(uri: str, names: Mapping[str, int]) -> Rule:
    """Label each image with the alphabetical rank of its top folder among all top folders."""
    loose = {name: count for name, count in names.items() if "/" not in name}
    if loose:
        raise ConfigError(
            f"layout: {uri} holds {sum(loose.values())} images outside of any class's folder, such as {min(loose)};"
            " imagefolder needs one folder per class and no images beside them"
        )
    index = {folder: number for number, folder in enumerate(sorted({name.partition("/")[0] for name in names}))}

    def rule(item: SourceItem) -> SourceItem:
        folder = item.name.partition("/")[0]
        return item._replace(label=index[folder], synset=folder)

    return rule


def _ffhq(uri: str, names: Collection[str], will_align: bool) -> Rule:
    """Take FFHQ's 1024x1024 images, or else its thumbnails; a mixture would hold every face twice.

    To be aligned, the in-the-wild photos come first.
    """
    inside = _plain(name_of(uri))
    for folder in (_FFHQ_WILD, *_FFHQ_ALIGNED) if will_align else _FFHQ_ALIGNED:
        if inside == folder:
            return lambda item: item
        if any(folder in _folders(name) for name in names):
            return lambda item, folder=folder: item if folder in _folders(item.name) else None
    if inside == _FFHQ_WILD or any(_FFHQ_WILD in _folders(name) for name in names):
        raise DataError(
            f"source: {uri} holds FFHQ's in-the-wild images: uncropped photos whose faces are not aligned, on which"
            " SR3's face models are not trained. Use FFHQ's images1024x1024 or thumbnails128x128, add --align-faces"
            " to align them here, or give --layout folder to use them as plain photos"
        )
    raise ConfigError(
        f"layout: {uri} has none of FFHQ's folders ({', '.join(_FFHQ_ALIGNED)}); use --layout auto or folder"
    )


def _celebahq(names: Collection[str]) -> Rule:
    """Take CelebA-HQ without its segmentation masks; of several resolutions, take the largest."""
    largest = max((0, *(_celeba_size(name) for name in names)))
    return lambda item: item if _celeba_size(item.name) == largest else None


def _celeba_size(name: str) -> int:
    """The resolution that an image's folder states, 0 if none does, -1 for a mask."""
    folders = _folders(name)
    if any("mask-anno" in folder for folder in folders):
        return -1
    matches = [match for folder in folders if (match := _CELEBA_SIZES.fullmatch(folder))]
    return int(matches[-1][1]) if matches else 0


def _imagenet(uri: str, names: Collection[str], texts: Texts) -> Rule:
    """Label ImageNet's images with class index and WordNet id, by folder, file name or ground-truth file."""
    without = [name for name in names if synset_in(name) is None]
    truth: dict[int, str] = {}
    if any(map(_validation_number, without)):
        truth = _read_ground_truth(uri, texts)
    if not truth and len(without) == len(names):
        raise ConfigError(
            f"layout: {uri} has no folder or file named after a synset (n01440764); use --layout auto or folder"
        )

    def rule(item: SourceItem) -> SourceItem:
        synset = item.synset or synset_in(item.name) or truth.get(_validation_number(item.name) or 0)
        label = CLASS_INDEX.get(synset or "") if item.label is None else item.label
        return item._replace(label=label, synset=synset)

    return rule


def _validation_number(name: str) -> int | None:
    match = _VALIDATION.match(name.rpartition("/")[2]) if _VALIDATION_START in name else None
    return int(match[1]) if match else None


def synset_in(name: str) -> str | None:
    """The WordNet id in a path: the last folder that is one, or the start of the file name (n01440764_10026.JPEG)."""
    folders, file = _folders(name), name.rpartition("/")[2]
    for part in (*reversed(folders), file.split(".")[0].split("_")[0]):
        if _SYNSET.fullmatch(part):
            return part
    return None


def _find_ground_truth(uri: str, texts: Texts) -> tuple[str, Callable[[], bytes]] | None:
    """The file that states the classes of validation images, by its name and how to read it: in the source, or beside.

    In the source it may be anywhere; of several, the one in the fewest folders.
    """
    for name in _GROUND_TRUTHS:
        there = [text for text in texts if text.rpartition("/")[2] == name]
        if there:
            nearest = min(there, key=lambda text: (text.count("/"), text))
            return nearest, texts[nearest]
    for name, folders in itertools.product(_GROUND_TRUTHS, _GROUND_TRUTH_FOLDERS):
        if exists(path := join(parent_of(uri), *folders, name)):
            return path, partial(read_bytes, path)
    return None


def _read_ground_truth(uri: str, texts: Texts) -> dict[int, str]:
    """Read number of validation image -> WordNet id, from any of the kinds of file that state it.

    Raises:
        DataError: there is no such file, or it is damaged.
    """
    found = _find_ground_truth(uri, texts)
    if found is None:
        raise DataError(
            f"source: {uri} holds ImageNet's validation images without their classes; put"
            " ILSVRC2012_validation_ground_truth.txt, LOC_val_solution.csv or val.txt into it or beside it,"
            " or give --layout folder to do without classes"
        )
    path, read = found
    try:
        lines = read().decode("utf-8-sig", "replace").splitlines()
        if path.endswith(".csv"):  # ILSVRC2012_val_00048981,n03995372 85 1 499 272
            rows = [row for row in csv.reader(io.StringIO("\n".join(lines))) if row and row[0] != "ImageId"]
            return {_number(row[0]): row[1].split()[0] for row in rows}
        if name_of(path) == "val.txt":  # ILSVRC2012_val_00000001.JPEG 65
            synsets = list(CLASS_INDEX)
            return {_number(line.split()[0]): synsets[int(line.split()[1])] for line in lines if line.strip()}
        return {number: SYNSET_OF_ILSVRC_ID[int(line)] for number, line in enumerate(lines, start=1)}
    except DecodeError as error:
        raise DataError(f"{path}: {error.detail}") from error
    except (ValueError, IndexError, KeyError) as error:
        raise DataError(f"{path}: not a ground-truth file of ImageNet's validation set ({error!r})") from error


def _number(name: str) -> int:
    match = _VALIDATION.match(name + ".")
    if match is None:
        raise ValueError(name)
    return int(match[1])
