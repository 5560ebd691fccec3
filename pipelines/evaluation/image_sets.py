"""Sets of images to compare: which files belong together, hashes of their contents, their labels.

A set is a folder's files, or a split of prepared shards, whose images are read directly from the tars.
"""

import csv
import hashlib
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from pipelines.images.file_names import IgnoredFiles
from pipelines.runtime.tasks import map_in_tasks
from pipelines.runtime.threads import map_in_threads
from pipelines.sampling.photo_finder import find_photos
from pipelines.shards.manifest import MANIFEST, load_index, load_manifest
from pipelines.storage.uris import absolute, exists, join, read_bytes, read_range
from sr3core.errors import ConfigError, DataError
from sr3core.features.classifiers import NUM_CLASSES

NUM_NAMED = 5
"""Number of files that a message names before it counts the rest."""
_NUM_THREADS = 16
"""Files that are read at once: from a bucket, the time is spent waiting."""
_HASHED_AT_ONCE = 256
"""Files that a task hashes."""
_MEMBER = re.compile(r"(.+\.tar)#(\d+)\+(\d+)")
"""Location of an image in a tar: the tar, the image's offset and size in bytes."""


@dataclass(frozen=True, slots=True)
class ImageSet:
    """Images by name: a folder's files without their extensions, or a split's originals by their keys."""

    name: str
    """The set's name in tables."""
    folder: str
    files: Mapping[str, str]
    """Name -> what `read_image` takes."""
    ignored: IgnoredFiles = field(default_factory=IgnoredFiles)
    """The folder's other files."""
    shards: Mapping[str, str] = field(default_factory=dict)
    """Shard -> its sha256 by the manifest, of images in shards."""

    @classmethod
    def read(cls, folder: str, name: str, split: str | None = None) -> "ImageSet":
        """List a folder, or one split of a stage that `sr3 prepare` wrote.

        Raises:
            DataError: it does not exist, is empty, or holds two images of one name.
        """
        if exists(join(absolute(folder), MANIFEST)):
            files, shards = _originals(absolute(folder), split)
            return cls(name, folder, files, shards=shards)
        files: dict[str, str] = {}
        found = find_photos([folder])
        for photo in found.photos:
            stem = Path(photo.name).stem
            if stem in files:
                raise DataError(f"{folder} holds two images named {stem}; files are paired by name without extension")
            files[stem] = photo.uri
        return cls(name, folder, files, found.ignored)

    @classmethod
    def of_samples(cls, folder: Path, method: str, keys: Sequence[str]) -> "ImageSet":
        """A method's images of a run: FOLDER/METHOD/KEY.png."""
        return cls(method, str(folder / method), {key: str(folder / method / f"{key}.png") for key in keys})

    def hashes(self, names: Sequence[str]) -> list[str]:
        """What stands for each named file's bytes: the sha256 of its shard and its place there, or else that of its
        bytes, which tasks read."""
        known = {name: self._in_shard(self.files[name]) for name in names}
        unknown = [name for name, digest in known.items() if digest is None]
        parts = [unknown[start : start + _HASHED_AT_ONCE] for start in range(0, len(unknown), _HASHED_AT_ONCE)]
        files = ([self.files[name] for name in part] for part in parts)
        for part, digests in zip(parts, map_in_tasks(_hashes_of, files), strict=True):
            known.update(zip(part, digests, strict=True))
        return [known[name] or "" for name in names]

    def _in_shard(self, file: str) -> str | None:
        found = _MEMBER.fullmatch(file) if self.shards else None
        return f"{self.shards[found[1]]}#{found[2]}+{found[3]}" if found else None


def read_image(file: str) -> bytes:
    """Read a set's image: a path, an s3:// URI, or a part of a tar at either.

    Raises:
        StorageError: it cannot be read.
    """
    found = _MEMBER.fullmatch(file)
    return read_range(found[1], int(found[2]), int(found[3])) if found else read_bytes(file)


def _hashes_of(files: Sequence[str]) -> list[str]:
    """The sha256 of some files: one task."""
    with ThreadPoolExecutor(_NUM_THREADS) as pool:
        return list(pool.map(lambda file: hashlib.sha256(read_image(file)).hexdigest(), files))


def _originals(directory: str, split: str | None) -> tuple[dict[str, str], dict[str, str]]:
    """Key -> location of the high-resolution image, for every sample of a split; and shard -> its sha256."""
    if split is None:
        raise DataError(f"{directory} holds shards, not images; name a folder of images")
    shards = [shard for shard in load_manifest(directory).splits.get(split, ()) if shard.num_samples]
    if not shards:
        raise DataError(f"{directory} holds no {split} images; choose another --split")
    files: dict[str, str] = {}
    names = [shard.name for shard in shards]
    for name, index in zip(names, map_in_threads(partial(load_index, directory), names), strict=True):
        path = join(directory, name)
        for key, members in zip(index.keys, index.members, strict=True):
            (offset, size) = next(place for member, place in members.items() if member.startswith("hr."))
            files[key] = f"{path}#{offset}+{size}"
    return files, {join(directory, shard.name): shard.sha256 for shard in shards}


def named_folders(texts: Sequence[str]) -> dict[str, str]:
    """Read "NAME=DIR" or "DIR", whose name is the folder's own, into name -> folder.

    Raises:
        ConfigError: a name is empty or given twice.
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
        hint = "Files are paired by name without extension; to compare sets of different images, use --unpaired"
        raise DataError(f"{'; '.join(problems)}. {hint}")
    return names


def read_labels(path: str, names: Sequence[str]) -> list[int]:
    """ImageNet class index of each named image, from a CSV with columns `file` and `imagenet_index` (or `label`).

    Files are matched by name without folder and extension; rows of other files are ignored.

    Raises:
        DataError: the file cannot be read, lacks a column, contradicts itself, or has no label for an image.
    """
    try:
        with Path(path).open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            rows, columns = list(reader), list(reader.fieldnames or ())
    except (OSError, ValueError, csv.Error) as error:
        why = getattr(error, "strerror", None) or error
        raise DataError(f"--labels: {path} cannot be read: {why}; name a CSV file") from error
    column = next((name for name in ("imagenet_index", "label") if name in columns), None)
    if "file" not in columns or column is None:
        found = ", ".join(columns)[:200] or "none"
        raise DataError(
            f"--labels: {path} has the columns {found}; name a CSV file with columns file and imagenet_index (or label)"
        )
    labels: dict[str, int] = {}
    for row in rows:
        stem, text = Path(row["file"] or "").stem, (row[column] or "").strip()
        if not text.isdecimal():
            raise DataError(
                f"--labels: {path}: {row['file']} has label {text!r}, which is not a class index; correct it"
            )
        if int(text) >= NUM_CLASSES:
            raise DataError(
                f"--labels: {path}: {row['file']} has label {text}, ImageNet's classes are 0 to {NUM_CLASSES - 1}"
            )
        if labels.setdefault(stem, int(text)) != int(text):
            raise DataError(f"--labels: {path} gives {stem} two labels, {labels[stem]} and {text}; leave one")
    missing = [name for name in names if name not in labels]
    if missing:
        raise DataError(
            f"--labels: {path} has no label for {len(missing)} of {len(names)} images: {listed(missing)}; add them"
        )
    return [labels[name] for name in names]


def listed(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - NUM_NAMED} more" if len(names) > NUM_NAMED else ""
    return ", ".join(names[:NUM_NAMED]) + more
