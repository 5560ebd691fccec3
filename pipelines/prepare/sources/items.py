"""One image of a source and how to read it; layouts and archives list sources as such items."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from pipelines.images.file_names import IgnoredFiles, IgnoreReason, why_ignored

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


@dataclass(frozen=True, slots=True)
class Source:
    """A listed source."""

    uri: str
    """Folder, archive or prefix."""
    container: str
    """What holds the images: "files", "zip", "tar" or "parquet"."""
    rule: str
    """How images are chosen and labelled by their names: "folder" (all of them), "imagefolder", "ffhq", ..."""
    items: list[SourceItem]
    """Its images, in order of their names."""
    ignored: IgnoredFiles = field(default_factory=IgnoredFiles)
    """Its other files. Every file of the source is in items or here."""
    class_names: tuple[str, ...] = ()
    """Names of the classes that were numbered by their names, in order of the numbers."""

    @property
    def layout(self) -> str:
        """Container and rule in a few words."""
        if self.container == "files":
            return self.rule
        return self.container if self.rule == "folder" else f"{self.container}, {self.rule}"


def in_order(items: Iterable[SourceItem]) -> list[SourceItem]:
    """Sort items by name, and mark every item whose name occurred before: archives may hold a name twice."""
    ordered: list[SourceItem] = []
    for item in sorted(items, key=lambda item: (item.name, item.path, item.offset, item.size)):
        repeated = bool(ordered) and ordered[-1].name == item.name
        ordered.append(item._replace(how="repeated") if repeated else item)
    return ordered
