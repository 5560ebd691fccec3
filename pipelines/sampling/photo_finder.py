"""Finding users' photos in files, folders, patterns and buckets, and naming their outputs."""

import glob
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from pipelines.images.file_names import why_ignored
from pipelines.storage.s3 import split_options
from pipelines.storage.uris import absolute, is_file, is_folder, is_remote, join, list_files, name_of
from sr3core.errors import ConfigError, DataError

_PATTERN = re.compile(r"[*?\[]")


@dataclass(frozen=True, slots=True)
class Photo:
    """One image to upscale."""

    uri: str
    """Absolute path, or s3:// URI."""
    name: str
    """Relative to the folder that was named, or to the part of a pattern before its first wildcard."""


def find_photos(inputs: Iterable[str], recursive: bool = False, leave_out: str | None = None) -> list[Photo]:
    """The files that are named, the images of folders and prefixes, and what patterns match; each once.

    Args:
        inputs: files, folders, patterns (`*` and `[...]` within a name, `**` across folders), locally or at s3://.
        recursive: look into the folders of folders too.
        leave_out: a folder to skip if it lies below an input: that of the outputs.

    Raises:
        DataError: an input does not exist or match, or none holds an image.
    """
    inputs = list(inputs)
    found: dict[str, Photo] = {}
    for text in inputs:
        photos = _find(absolute(text), recursive)
        if photos is None:
            raise DataError(f"{text}: no such file or folder, and as a pattern it matches nothing")
        if leave_out and _is_below(leave_out, _split_pattern(absolute(text))[0]):
            photos = [photo for photo in photos if not _is_below(photo.uri, leave_out)]
        found.update((photo.uri, photo) for photo in photos if photo.uri not in found)
    if not found:
        deeper = "" if recursive else '; a quoted pattern, "DIR/**/*.png", also searches subfolders'
        raise DataError(f"{', '.join(inputs)}: no image found{deeper}")
    return list(found.values())


def _find(uri: str, recursive: bool) -> list[Photo] | None:
    """The photos of one input, perhaps none; None if nothing has that name."""
    if is_file(uri):
        return [Photo(uri, name_of(uri))]
    if is_folder(uri):
        names = _names_below(uri) if recursive or is_remote(uri) else os.listdir(uri)
        chosen = [name for name in sorted(names) if _is_photo(name) and (recursive or "/" not in name)]
        return [Photo(join(uri, name), name) for name in chosen if is_remote(uri) or is_file(join(uri, name))]
    root, pattern = _split_pattern(uri)
    if not pattern:
        return None
    if is_remote(uri):
        matches = re.compile(_regex(pattern)).fullmatch
        names = [name for name in _names_below(root) if matches(name)]
    else:
        names = glob.glob(pattern, root_dir=root, recursive=True)
    photos = [Photo(join(root, name), name) for name in sorted(names) if _is_photo(name)]
    return [photo for photo in photos if is_remote(uri) or is_file(photo.uri)] or None


def _is_photo(name: str) -> bool:
    return why_ignored(name) is None


def _names_below(uri: str) -> list[str]:
    return [name for name, _ in list_files(uri)]


def _is_below(uri: str, folder: str) -> bool:
    path, folder = (split_options(text)[0].rstrip("/") for text in (uri, folder))
    return path.startswith(f"{folder}/")


def _split_pattern(uri: str) -> tuple[str, str]:
    """A URI's folders before its first wildcard, and the pattern after them; "" if it has none.

    Brackets in the name of a folder that exists are no wildcard: "scans [2019]/*.jpg" looks into that folder.
    """
    path, options = split_options(uri) if is_remote(uri) else (uri, "")
    searched = 0
    while wildcard := _PATTERN.search(path, searched):
        start, searched = path.rfind("/", 0, wildcard.start()) + 1, path.find("/", wildcard.start())
        if searched < 0 or not is_folder(path[:searched] + options):
            return (path[:start].rstrip("/") or "/") + options, path[start:]
    return uri, ""


def _regex(pattern: str) -> str:
    """A pattern as a regular expression, as glob reads it: only ** crosses folders."""
    text = re.escape(pattern).replace(r"\*\*/", "(?:.*/)?").replace(r"\*\*", ".*").replace(r"\*", "[^/]*")
    return re.sub(r"\\\[(.*?)\\\]", r"[\1]", text.replace(r"\?", "[^/]"))


def name_outputs(photos: Sequence[Photo], out: str, ending: str) -> dict[str, Photo]:
    """Name each photo's output below `out`: like the photo, with another ending.

    Raises:
        DataError: several photos would get the same output name; lists the first ones.
        ConfigError: an output would overwrite a photo.
    """
    named: dict[str, Photo] = {}
    clashes = []
    for photo in photos:
        name = str(PurePosixPath(photo.name).with_suffix(f".{ending}"))
        first = named.setdefault(name, photo)
        if first is not photo:
            clashes.append(f"{first.uri} and {photo.uri} would both become {name}")
    if clashes:
        more = f"; and {len(clashes) - 3} more" if len(clashes) > 3 else ""
        raise DataError(
            f"{'; '.join(clashes[:3])}{more}. Rename one of each, or upscale them separately, each with its own --out;"
            ' a pattern such as "DIR/*.jpg" selects one kind'
        )
    sources = {photo.uri for photo in photos}
    for name in named:
        if join(out, name) in sources:
            raise ConfigError(
                f"out: {join(out, name)} is one of the input images; choose another --out, so that they are kept"
            )
    return named
