"""One image of a source and how to read it; layouts and archives list sources as such items."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

How = Literal["file", "range", "stored", "deflated", "row", "repeated", "damaged"]


class SourceItem(NamedTuple):
    """One image of a source, and how to read it."""

    name: str
    """Name relative to the source. Name and bytes decide the record's key, the name alone the split."""
    path: str
    """File that holds it, relative to the source; "" if the source is itself that file."""
    how: How = "file"
    """How to read it: the whole file, a range of it, a stored or deflated zip member, or a parquet row. repeated: the
    name occurred before; damaged: it is in the source but cannot be read."""
    offset: int = 0
    """Offset of the first byte or of the zip member's header, or number of the parquet row group."""
    size: int = -1
    """Bytes of the range or zip member, or number of the row in its group."""
    crc: int | None = None
    """CRC-32 of the image, if the archive states one."""
    label: int | None = None
    """Class index, if the source states one."""
    synset: str | None = None
    """Name of that class: its WordNet id (ImageNet) or its folder."""
    problem: str = ""
    """Why it is damaged."""


@dataclass(frozen=True, slots=True)
class Source:
    """A listed source."""

    uri: str
    """Folder, archive or prefix."""
    layout: str
    """Layout by which it was listed."""
    items: list[SourceItem]
    """Its images, in order of their names."""
    ignored: list[str] = field(default_factory=list)
    """Names of the other files: not images by their extension, or not part of the layout."""


def in_order(items: Iterable[SourceItem]) -> list[SourceItem]:
    """Sort items by name, and mark every item whose name occurred before: archives may hold a name twice."""
    ordered: list[SourceItem] = []
    for item in sorted(items, key=lambda item: (item.name, item.path, item.offset, item.size)):
        repeated = bool(ordered) and ordered[-1].name == item.name
        ordered.append(item._replace(how="repeated") if repeated else item)
    return ordered
