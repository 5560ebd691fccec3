"""Folders of images to be compared: which files belong together, their contents' hashes, their labels."""

import csv
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.photos import find_photos
from pipelines.storage import read_bytes
from sr3core.classifiers import NUM_CLASSES
from sr3core.errors import ConfigError, DataError

NUM_NAMED = 5
"""Files that a message names before it counts the rest."""


@dataclass(frozen=True, slots=True)
class ImageSet:
    """A folder's image files by name without ending."""

    name: str
    """What the table calls it."""
    folder: str
    files: Mapping[str, str]
    """Name -> path or s3:// URI."""

    @classmethod
    def read(cls, folder: str, name: str) -> "ImageSet":
        """List a folder.

        Raises:
            DataError: it does not exist, is empty, or holds two images of one name.
        """
        files: dict[str, str] = {}
        for photo in find_photos([folder]):
            stem = Path(photo.name).stem
            if stem in files:
                raise DataError(f"{folder} holds two images named {stem}; files are paired by name without ending")
            files[stem] = photo.uri
        return cls(name, folder, files)

    @classmethod
    def of_samples(cls, folder: Path, method: str, keys: Sequence[str]) -> "ImageSet":
        """A method's images of a run: FOLDER/METHOD/KEY.png."""
        return cls(method, str(folder / method), {key: str(folder / method / f"{key}.png") for key in keys})

    def hashes(self, names: Sequence[str]) -> list[str]:
        """sha256 of each named file's bytes."""
        return [hashlib.sha256(read_bytes(self.files[name])).hexdigest() for name in names]


def named_folders(texts: Sequence[str]) -> dict[str, str]:
    """Read "NAME=DIR" or "DIR", whose name is the folder's own, into name -> folder.

    Raises:
        ConfigError: a name is empty or there twice.
    """
    found: dict[str, str] = {}
    for text in texts:
        name, sign, folder = text.partition("=")
        if not sign or "/" in name:  # a path may hold an equals sign
            name, folder = Path(text).name, text
        if not name or not folder:
            raise ConfigError(f"--outputs: {text!r} is neither DIR nor NAME=DIR")
        if name in found:
            raise ConfigError(f"--outputs: {found[name]} and {folder} are both called {name!r}; give names: NAME=DIR")
        found[name] = folder
    return found


def check_pairs(references: ImageSet, others: Sequence[ImageSet]) -> list[str]:
    """The names that all sets share, sorted.

    Raises:
        DataError: a set lacks a reference's image or has one without a reference; names the files.
    """
    names = sorted(references.files)
    problems = []
    for other in others:
        place = f"{other.name} ({other.folder})"
        missing = [name for name in names if name not in other.files]
        extra = [name for name in sorted(other.files) if name not in references.files]
        if missing:
            problems.append(f"{len(missing)} references have no image in {place}: {listed(missing)}")
        if extra:
            problems.append(f"{len(extra)} images in {place} have no reference: {listed(extra)}")
    if problems:
        hint = "Files are paired by name without ending; sets of other images are compared with --unpaired"
        raise DataError(f"{'; '.join(problems)}. {hint}")
    return names


def read_labels(path: str, names: Sequence[str]) -> list[int]:
    """ImageNet class index of each named image, from a CSV with columns `file` and `imagenet_index` (or `label`).

    Files are matched by name without folder and ending; rows of other files are passed over.

    Raises:
        DataError: the file cannot be read, lacks a column, contradicts itself, or has no label for an image.
    """
    try:
        with Path(path).open(newline="") as file:
            reader = csv.DictReader(file)
            rows, columns = list(reader), list(reader.fieldnames or ())
    except OSError as error:
        raise DataError(f"--labels: {path} cannot be read: {error.strerror}") from error
    column = next((name for name in ("imagenet_index", "label") if name in columns), None)
    if "file" not in columns or column is None:
        raise DataError(
            f"--labels: {path} needs columns file and imagenet_index (or label), it has {', '.join(columns) or 'none'}"
        )
    labels: dict[str, int] = {}
    for row in rows:
        stem, text = Path(row["file"]).stem, (row[column] or "").strip()
        if not text.isdecimal():
            raise DataError(f"--labels: {path}: {row['file']} has label {text!r}, which is no class index")
        if int(text) >= NUM_CLASSES:
            raise DataError(
                f"--labels: {path}: {row['file']} has label {text}, ImageNet's classes are 0 to {NUM_CLASSES - 1}"
            )
        if labels.setdefault(stem, int(text)) != int(text):
            raise DataError(f"--labels: {path} gives {stem} two labels, {labels[stem]} and {text}")
    missing = [name for name in names if name not in labels]
    if missing:
        raise DataError(f"--labels: {path} has no label for {len(missing)} of {len(names)} images: {listed(missing)}")
    return [labels[name] for name in names]


def listed(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - NUM_NAMED} more" if len(names) > NUM_NAMED else ""
    return ", ".join(names[:NUM_NAMED]) + more
