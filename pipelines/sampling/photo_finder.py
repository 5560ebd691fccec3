"""Finding users' photos in files, folders, patterns and buckets, and naming their outputs."""

import glob
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from pipelines.images.file_names import IgnoredFiles, IgnoreReason, why_ignored
from pipelines.images.folder_files import files_below
from pipelines.storage.buckets.s3_client import split_options
from pipelines.storage.uris import (
    absolute,
    exists,
    is_below,
    is_file,
    is_folder,
    is_remote,
    join,
    list_entries,
    name_of,
    relative_to,
)
from sr3core.errors import ConfigError, DataError

_PATTERN = re.compile(r"[*?\[]")


@dataclass(frozen=True, slots=True)
class Photo:
    """One image to upscale."""

    uri: str
    """Absolute path, or s3:// URI."""
    name: str
    """Relative to the folder that was named, or to the part of a pattern before its first wildcard."""


@dataclass(frozen=True, slots=True)
class FoundPhotos:
    """What inputs name: every file of theirs is in one of the two."""

    photos: list[Photo]
    """The images, each once."""
    ignored: IgnoredFiles
    """The other files, by their names with the input's before them."""


def find_photos(inputs: Iterable[str], recursive: bool = False, leave_out: str | None = None) -> FoundPhotos:
    """The files that are named, the images of folders and prefixes, and what patterns match.

    Args:
        inputs: files, folders, patterns (`*` and `[...]` within a name, `**` across folders), locally or at s3://.
        recursive: look into the folders of folders too.
        leave_out: a folder to skip if it lies below an input: that of the outputs.

    Raises:
        DataError: an input does not exist or match, or none holds an image.
    """
    inputs = list(inputs)
    photos: dict[str, Photo] = {}
    left: dict[str, tuple[str, IgnoreReason]] = {}
    for text in inputs:
        for name, uri, reason in _find(text, recursive, () if leave_out is None else (absolute(leave_out),)):
            if reason is None:
                photos.setdefault(uri, Photo(uri, name))
            else:
                left.setdefault(uri, (_as_written(text, name, uri), reason))
    ignored = IgnoredFiles()
    for name, reason in (left[uri] for uri in left if uri not in photos):
        ignored.add(name, reason)
    if not photos:
        others = f", but {ignored.describe()}" if ignored else ""
        deeper = "" if recursive else ', or with subfolders in quotes "DIR/**/*.png"'
        raise DataError(f"{', '.join(inputs)}: no image found{others}; name images or a folder of them{deeper}")
    return FoundPhotos(list(photos.values()), ignored)


def _as_written(text: str, name: str, uri: str) -> str:
    """A file's name as a user would write it who wrote this input."""
    if is_remote(uri):
        return uri
    return os.path.join(text.removesuffix(_split_pattern(absolute(text))[1]), name)


_Found = Iterator[tuple[str, str, IgnoreReason | None]]
"""Files by name, relative to the folder that was named, and URI: a photo, or why it is ignored."""


def _find(text: str, recursive: bool, outputs: Sequence[str]) -> _Found:
    """Every file of one input.

    Raises:
        DataError: nothing has that name.
    """
    uri = absolute(text)
    if is_file(uri):
        yield name_of(uri), uri, None
    elif is_folder(uri):
        yield from _in_folder(uri, recursive, outputs)
    elif _split_pattern(uri)[1]:
        yield from _matching(text, *_split_pattern(uri), outputs)
    elif exists(uri):
        raise DataError(f"{text}: neither a file nor a folder, but a pipe, socket or device; name one of those")
    else:
        raise DataError(f"{text}: no such file or folder; correct the name")


def _in_folder(uri: str, recursive: bool, outputs: Sequence[str]) -> _Found:
    ignored = IgnoredFiles()
    for name in sorted(files_below(uri, ignored, outputs=outputs, recursive=recursive)):
        yield name, join(uri, name), why_ignored(name)
    for name, reason in ignored:
        yield name, join(uri, name), reason


def _matching(text: str, root: str, pattern: str, outputs: Sequence[str]) -> _Found:
    is_deep = is_remote(root) or "**" in pattern  # glob's own ** goes round in links to folders above
    names = _matches_below(root, pattern) if is_deep else glob.glob(pattern, root_dir=root)
    if not names:
        raise DataError(f"{text}: no such file or folder, and as a pattern it matches nothing; correct the name")
    own = [output for output in outputs if relative_to(output, root)]
    for name in sorted(names):
        uri = join(root, name)
        if is_remote(uri) or not os.path.isdir(uri):
            yield name, uri, _why_left_out(name, uri, own)
        else:
            yield f"{name.rstrip('/')}/", uri, IgnoreReason.SUBFOLDER


def _why_left_out(name: str, uri: str, outputs: Sequence[str]) -> IgnoreReason | None:
    if any(is_below(uri, output) for output in outputs):
        return IgnoreReason.OWN_OUTPUT
    is_special = not is_remote(uri) and os.path.exists(uri) and not os.path.isfile(uri)
    return IgnoreReason.NOT_A_REGULAR_FILE if is_special else why_ignored(name)


def _matches_below(root: str, pattern: str) -> list[str]:
    matches = re.compile(_regex(pattern), re.DOTALL).fullmatch
    return [name for name, *_ in list_entries(root) if matches(name)] if is_folder(root) else []


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
