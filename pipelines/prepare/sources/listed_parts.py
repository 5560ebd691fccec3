"""Parts of a source's listing: each is made on its own, in a task, and what all of them tell together is gathered."""

import itertools
import pickle
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from pipelines.images.file_names import MAX_FILE_BYTES, IgnoredFiles, IgnoredPart, IgnoreReason, is_image_name
from pipelines.prepare.sources.archives import kind_of, list_archive
from pipelines.prepare.sources.class_labels import ClassSurvey
from pipelines.prepare.sources.items import (
    PART_ITEMS,
    Ignored,
    Listing,
    Parts,
    SourceItem,
    decode_items,
    encode_items,
    in_order,
    judged,
)
from pipelines.prepare.sources.layouts import NameSurvey, Rule, is_label_file
from pipelines.prepare.sources.parquet_files import Columns
from pipelines.storage.spool import Extent, Spool


class FileList:
    """The names and sizes of a source's files, put aside in parts.

    Args:
        files: (name relative to the source, bytes) of each; the name is "" if the source is itself a file.
    """

    def __init__(self, files: Iterable[tuple[str, int]]) -> None:
        self.num_files = 0
        self.is_alone = False
        self.kinds: Counter[str] = Counter()
        self.first: dict[str, str] = {}
        self._spool = Spool()
        self._extents: list[Extent] = []
        remaining = iter(files)
        while some := list(itertools.islice(remaining, PART_ITEMS)):
            self._add(some)

    def _add(self, files: list[tuple[str, int]]) -> None:
        self.num_files += len(files)
        self.is_alone = files[0][0] == ""
        for name, _ in files:
            kind = "files" if is_image_name(name) else kind_of(name)
            if kind is not None:
                self.kinds[kind] += 1
                if name < self.first.setdefault(kind, name):
                    self.first[kind] = name
        self._extents.append(self._spool.append(pickle.dumps(files, pickle.HIGHEST_PROTOCOL)))

    def __iter__(self) -> Iterator[bytes]:
        """The parts, for decode_files."""
        return map(self._spool.read, self._extents)


def decode_files(part: bytes) -> list[tuple[str, int]]:
    """Names and sizes of a part of a FileList."""
    return pickle.loads(part)


@dataclass(slots=True)
class Part:
    """What a part of a source holds."""

    items: list[tuple[bytes, int]] = field(default_factory=list)
    """Its images, see encode_items, with their number."""
    ignored: IgnoredPart = field(default_factory=IgnoredPart)
    """Its other files, and why."""
    texts: dict[str, SourceItem] = field(default_factory=dict)
    """Those of them that a layout may want, see is_label_file."""
    is_usable: bool = False
    """Whether an image of it is not damaged."""
    names: NameSurvey = field(default_factory=NameSurvey)
    """The names of its images; places where an archive is damaged have no image's name, and belong to every layout."""
    classes: ClassSurvey = field(default_factory=ClassSurvey)
    """The labels of its images."""


@dataclass(slots=True)
class Survey:
    """What all parts of a source tell together."""

    ignored: IgnoredFiles
    """Takes the files that are none of its images."""
    parts: Parts = field(default_factory=Parts)
    """The images."""
    texts: dict[str, SourceItem] = field(default_factory=dict)
    """Files of labels."""
    is_usable: bool = False
    """Whether one of them is not damaged."""
    names: NameSurvey = field(default_factory=NameSurvey)
    """Their names."""
    classes: ClassSurvey = field(default_factory=ClassSurvey)
    """Their labels."""

    def ignore(self, file: Ignored) -> None:
        """Take note of a file that is no image."""
        self.ignored.add(file.name, file.reason)
        if file.item and is_label_file(file.name):
            self.texts[file.name] = file.item

    def add(self, parts: Iterable[Part]) -> None:
        """Take note of parts."""
        for part in parts:
            self._add(part)

    def _add(self, part: Part) -> None:
        for items, count in part.items:
            self.parts.add(items, count)
        self.ignored.merge(part.ignored)
        self.texts |= part.texts
        self.is_usable |= part.is_usable
        self.names.merge(part.names)
        self.classes.merge(part.classes)


def list_files(part: bytes) -> Part:
    """List a part of a FileList as images."""
    return _part(map(_file, decode_files(part)))


def list_archive_whole(uri: str, kind: str, columns: Columns, path: str) -> Part:
    """List an archive, see list_archive. A name that it holds again is marked: the places do not tell."""
    return _part(list_archive(uri, kind, columns, path), in_order)


def choose_items(rule: Rule, part: bytes) -> Part:
    """Take what a layout's rule takes of a part, with the labels that it gives."""
    return _part(_chosen(rule, item) for item in decode_items(part))


def _file(file: tuple[str, int]) -> SourceItem | Ignored:
    name, size = file
    item = SourceItem(name, name)
    if size > MAX_FILE_BYTES and is_image_name(name):
        item = item._replace(how="damaged", problem=f"{size} bytes are more than {MAX_FILE_BYTES}")
    return judged(item)


def _chosen(rule: Rule, item: SourceItem) -> SourceItem | Ignored:
    chosen = rule(item) if is_image_name(item.name) else item
    return Ignored(item.name, IgnoreReason.NOT_IN_LAYOUT) if chosen is None else chosen


def _part(
    entries: Listing | Iterable[SourceItem | Ignored],
    arrange: Callable[[list[SourceItem]], list[SourceItem]] = list,
) -> Part:
    items: list[SourceItem] = []
    part, ignored = Part(), IgnoredFiles()
    for entry in entries:
        if isinstance(entry, SourceItem):
            items.append(entry)
            continue
        ignored.add(entry.name, entry.reason)
        if entry.item and is_label_file(entry.name):
            part.texts[entry.name] = entry.item
    part.ignored = ignored.packed()
    part.is_usable = any(item.how != "damaged" for item in items)
    items = arrange(items)
    some = (items[first : first + PART_ITEMS] for first in range(0, len(items), PART_ITEMS))
    part.items = [(encode_items(few), len(few)) for few in some]
    part.names.add(item.name for item in items if is_image_name(item.name))
    part.classes.add(items)
    return part
