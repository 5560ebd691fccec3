"""One image of a source and how to read it; layouts and archives list sources as such items."""

import itertools
import pickle
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from pipelines.images.file_names import IgnoredFiles, IgnoreReason, why_ignored
from pipelines.storage.spool import Extent, Spool

How = Literal["file", "range", "sparse", "stored", "deflated", "row", "repeated", "damaged"]


class SourceItem(NamedTuple):
    """One image of a source, and how to read it."""

    name: str
    """Name relative to the source. Name and bytes decide the record's key, the name alone the split."""
    path: str
    """File that holds it, relative to the source; "" if the source is itself that file."""
    how: How = "file"
    """How to read it: the whole file, a range of it, a sparse tar member, a stored or deflated zip member, or a parquet
    row. repeated: the name occurred before; damaged: it is in the source but cannot be read."""
    offset: int = 0
    """Offset of the first byte or of the member's header, or number of the parquet row group."""
    size: int = -1
    """Bytes of the range or zip member, or number of the row in its group."""
    crc: int | None = None
    """CRC-32 of the image, if the archive states one."""
    label: int | None = None
    """Class index, if the source states one; BY_NAME until the classes that have only names are numbered."""
    synset: str | None = None
    """Name of that class: its WordNet id (ImageNet), its folder, or the label's text."""
    problem: str = ""
    """Why it is damaged."""
    low: "SourceItem | None" = None
    """Its given low-resolution image, whose names are relative to the source of those; None if there is none."""


def to_row(item: SourceItem) -> tuple:
    """An item as a row of a plan; one without a low-resolution image has no place for it, as in earlier versions."""
    return item if item.low is not None else item[:-1]


def from_row(row: Sequence) -> SourceItem:
    """The item of a row of a plan."""
    item = SourceItem(*row)
    return item if item.low is None else item._replace(low=SourceItem(*item.low))


BY_NAME = -(2**63)
"""Label of an item whose class has a name, its synset, and no number yet."""


class Ignored(NamedTuple):
    """A file of a source that is not one of its images."""

    name: str
    """Name relative to the source."""
    reason: IgnoreReason
    """Reason code."""
    item: SourceItem | None = None
    """How to read it all the same, if it is a whole file: a layout may want it, such as a list of labels."""


Listing = Iterator[SourceItem | Ignored]
"""What an archive or folder holds: exactly one entry for every file, and one for each place where it is damaged."""


def judged(item: SourceItem) -> SourceItem | Ignored:
    """An item if its name is an image's; or else why it is ignored."""
    reason = why_ignored(item.name)
    return Ignored(item.name, reason, item) if reason else item


PART_ITEMS = 50_000
"""Items of a source that are worked on at a time."""


class Parts:
    """Items put aside in parts, so that neither memory nor messages hold all of them."""

    def __init__(self) -> None:
        self.num_items = 0
        self._spool = Spool()
        self._extents: list[Extent] = []

    @classmethod
    def of(cls, items: Iterable[SourceItem]) -> "Parts":
        """Put items aside."""
        parts, remaining = cls(), iter(items)
        while some := list(itertools.islice(remaining, PART_ITEMS)):
            parts.add(encode_items(some), len(some))
        return parts

    def add(self, part: bytes, num_items: int) -> None:
        """Put a part aside."""
        self._extents.append(self._spool.append(part))
        self.num_items += num_items

    def __iter__(self) -> Iterator[bytes]:
        """The parts, for decode_items."""
        return map(self._spool.read, self._extents)


def encode_items(items: Iterable[SourceItem]) -> bytes:
    """Items as bytes; plain tuples, which pickle encodes several times as fast as named ones."""
    return pickle.dumps([tuple(item) for item in items], pickle.HIGHEST_PROTOCOL)


def decode_items(part: bytes) -> Iterator[SourceItem]:
    """What encode_items encoded."""
    return map(SourceItem._make, pickle.loads(part))


@dataclass(frozen=True, slots=True)
class Source:
    """A listed source."""

    uri: str
    """Folder, archive or prefix."""
    container: str
    """What holds the images: "files", "zip", "tar" or "parquet"."""
    rule: str
    """How images are chosen and labelled by their names: "folder" (all of them), "imagefolder", "ffhq", ..."""
    parts: Parts
    """Its images in no particular order; a label may be BY_NAME, and a name may be there twice, see `items`."""
    ignored: IgnoredFiles = field(default_factory=IgnoredFiles)
    """Its other files. Every file of the source is in items or here."""
    class_names: tuple[str, ...] = ()
    """Names of the classes that were numbered by their names, in order of the numbers."""

    @property
    def num_images(self) -> int:
        """Number of its images."""
        return self.parts.num_items

    @property
    def items(self) -> list[SourceItem]:
        """Its images, in order of their names: all of them in memory, which large sources do not fit."""
        number = numbering(self.class_names)
        return in_order(number(item) for part in self.parts for item in decode_items(part))

    @property
    def layout(self) -> str:
        """Container and rule in a few words."""
        if self.container == "files":
            return self.rule
        return self.container if self.rule == "folder" else f"{self.container}, {self.rule}"


def numbering(class_names: Sequence[str]) -> Callable[[SourceItem], SourceItem]:
    """What gives items whose label is BY_NAME the number of their class."""
    index = {name: number for number, name in enumerate(class_names)}
    return lambda item: item._replace(label=index[item.synset or ""]) if item.label == BY_NAME else item


def in_order(items: Iterable[SourceItem]) -> list[SourceItem]:
    """Sort items by name, and mark every item whose name occurred before: archives may hold a name twice."""
    ordered: list[SourceItem] = []
    for item in sorted(items, key=lambda item: (item.name, item.path, item.offset, item.size)):
        repeated = bool(ordered) and ordered[-1].name == item.name
        ordered.append(item._replace(how="repeated") if repeated else item)
    return ordered
