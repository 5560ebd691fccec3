"""Which files are treated as images, by their names, in every command; the format is determined by the bytes."""

import bisect
import posixpath
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from pipelines.storage.spool import SortedSpool

IMAGE_EXTENSIONS = frozenset(
    f".{extension}"
    for extension in (
        *("jpg", "jpeg", "jpe", "jfif", "png", "apng", "webp", "bmp", "dib", "tif", "tiff", "gif", "avif"),
        *("heic", "heif", "hif", "jp2", "jxl", "pbm", "ppm", "pgm", "pnm"),
    )
)
"""Extensions, lower case, of files that are treated as images."""

MAX_FILE_BYTES = 2**30
"""Largest file that is read as an image, bytes."""

_SYSTEM_FOLDERS = frozenset(
    (
        *("__macosx", "network trash folder", "temporary items"),  # macOS, above all in its zips
        *("@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot"),  # network disks: thumbnails, bins
        *("$recycle.bin", "recycler", "system volume information", "lost+found"),
    )
)
"""Names, lower case, of folders in which systems keep thumbnails, metadata and what was deleted."""

_ARCHIVE_EXTENSIONS = (
    *(".zip", ".tar", ".parquet"),
    *(".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2", ".tbz2", ".tar.zst", ".tzst", ".7z", ".rar"),
)
COMPRESSED_TARS = tuple(end for end in _ARCHIVE_EXTENSIONS if end.startswith((".tar.", ".t")) and end != ".tar")
"""Endings of tars that cannot be read image by image, because all of what is before an image must be decompressed."""


class IgnoreReason(StrEnum):
    """Reason code: why a file of a source is not among its images."""

    HIDDEN = "hidden"
    """Its name, or that of a folder above it, begins with a dot, or is one in which a system keeps its own files."""
    NOT_AN_IMAGE_NAME = "not_an_image_name"
    """Its name has no image's extension."""
    CLASS_LABEL = "class_label"
    """No image itself: the class of the one beside it, which was read."""
    ARCHIVE_NOT_OPENED = "archive_not_opened"
    """An archive among files of another kind, or inside an archive, or of a kind that is not read."""
    NOT_A_REGULAR_FILE = "not_a_regular_file"
    """A pipe, socket or device, whatever its name."""
    FOLDER_AGAIN = "folder_again"
    """A link to a folder whose files are taken under another name."""
    SUBFOLDER = "subfolder"
    """A folder in a folder whose own files alone are taken."""
    NOT_IN_LAYOUT = "not_in_layout"
    """Not what the source's layout takes: FFHQ's thumbnails beside its images, a shard's low-resolution images."""
    UNPAIRED = "unpaired"
    """One of a pair of images whose other one is not there."""
    AMBIGUOUS = "ambiguous"
    """One of several images of one name but for the extension, of which it is not known which belongs to a pair."""
    OWN_OUTPUT = "own_output"
    """In the folder that the command writes to."""


def is_image_name(name: str) -> bool:
    """Whether a name's extension is an image's."""
    return posixpath.splitext(name)[1].lower() in IMAGE_EXTENSIONS


def is_archive_name(name: str) -> bool:
    """Whether a name's extension is an archive's, of a kind that is read or of another."""
    return name.lower().endswith(_ARCHIVE_EXTENSIONS)


def is_hidden(name: str) -> bool:
    """Whether a name, relative to what the user named, is hidden or lies in a hidden folder or a system's own."""
    parts = [part for part in name.split("/") if part not in (".", "..")]  # ./a.png is what many tars hold
    return any(part.startswith(".") or part.lower() in _SYSTEM_FOLDERS for part in parts)


def why_ignored(name: str) -> IgnoreReason | None:
    """Why a file of this name, relative to what the user named, is not taken for an image; None if it is."""
    if is_hidden(name):
        return IgnoreReason.HIDDEN
    if is_image_name(name):
        return None
    return IgnoreReason.ARCHIVE_NOT_OPENED if is_archive_name(name) else IgnoreReason.NOT_AN_IMAGE_NAME


_REASONS = {reason.value: reason for reason in IgnoreReason}


@dataclass(frozen=True, slots=True)
class IgnoredPart:
    """What a part of a source ignores, as a task returns it: sorted and pickled, as the driver keeps it."""

    counts: Counter[IgnoreReason] = field(default_factory=Counter[IgnoreReason])
    """How many there are for each reason."""
    first: dict[IgnoreReason, list[str]] = field(default_factory=dict)
    """The first few of them."""
    runs: list[list[bytes]] = field(default_factory=list)
    """All of them, see SortedSpool.runs."""


class IgnoredFiles:
    """The files of a source that are not among its images: each with its reason. Many are held on the disk."""

    _NUM_SHOWN = 3

    def __init__(self) -> None:
        self._files: SortedSpool[tuple[str, str]] = SortedSpool()
        self._counts: Counter[IgnoreReason] = Counter()
        self._first: dict[IgnoreReason, list[str]] = {}

    def __len__(self) -> int:
        return self._counts.total()

    def __iter__(self) -> Iterator[tuple[str, IgnoreReason]]:
        """All of them, by name."""
        return ((name, _REASONS[reason]) for name, reason in self._files)

    def add(self, name: str, reason: IgnoreReason) -> None:
        """Note one."""
        self._files.add((name, reason.value))
        self._counts[reason] += 1
        self._show(name, reason)

    def _show(self, name: str, reason: IgnoreReason) -> None:
        first = self._first.setdefault(reason, [])
        if len(first) < self._NUM_SHOWN or name < first[-1]:
            bisect.insort(first, name)
            del first[self._NUM_SHOWN :]

    def packed(self) -> IgnoredPart:
        """All of them, for `merge` in another process."""
        return IgnoredPart(self._counts, self._first, self._files.runs())

    def merge(self, part: IgnoredPart) -> None:
        """Note all of a part of the source."""
        self._files.add_runs(part.runs)
        self._counts.update(part.counts)
        for reason, names in part.first.items():
            for name in names:
                self._show(name, reason)

    def update(self, others: "IgnoredFiles") -> None:
        """Note all of another place."""
        for name, reason in others:
            self.add(name, reason)

    def remarks(self) -> Iterator[str]:
        """The line that every command which reads a source prints, if there is anything to say."""
        if self._counts:
            yield f"ignored: {self.describe()}"

    def describe(self) -> str:
        """How many there are for each reason, and the first ones by name: "2 hidden ('.a.png', '.b.png')"."""
        parts = []
        for reason, count in sorted(self._counts.items()):
            shown = [repr(name) for name in self._first[reason]]
            shown += [f"and {count - len(shown)} more"] * (count > len(shown))
            parts.append(f"{count} {reason} ({', '.join(shown)})")
        return "; ".join(parts)
