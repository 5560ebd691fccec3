"""One image of a source and how to read it; what the listings in layouts.py and archives.py are made of."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

How = Literal["file", "range", "stored", "deflated", "row", "repeated", "damaged"]


class SourceItem(NamedTuple):
    """One image of a source, and how to read it."""

    name: str
    """Name relative to the source: with the bytes it decides the key, on its own the split."""
    path: str
    """File, relative to the source; "" where the source itself is the file."""
    how: How = "file"
    """The whole file, a range of it, a stored or deflated zip member, a parquet row; repeated: a name that came
    before; damaged: something that is in the source and cannot be read."""
    offset: int = 0
    """First byte, the zip member's header, or the parquet row group."""
    size: int = -1
    """Bytes of a range or zip member, or the row within its group."""
    crc: int | None = None
    """CRC-32 of the image, where the archive holds one."""
    label: int | None = None
    """Class index, where the source has one."""
    synset: str | None = None
    """That class's WordNet id, for ImageNet, or folder."""
    problem: str = ""
    """What is damaged about it."""


@dataclass(frozen=True, slots=True)
class Source:
    """A listed source."""

    uri: str
    """Folder, archive or prefix."""
    layout: str
    """Which layout it was read as."""
    items: list[SourceItem]
    """Its images, in order of their names."""
    ignored: list[str] = field(default_factory=list)
    """Names of the other files: no image by their extension, or not of this layout."""


def in_order(items: Iterable[SourceItem]) -> list[SourceItem]:
    """Sort by name, and mark every item whose name came before: archives may hold a name twice."""
    ordered: list[SourceItem] = []
    for item in sorted(items, key=lambda item: (item.name, item.path, item.offset, item.size)):
        repeated = bool(ordered) and ordered[-1].name == item.name
        ordered.append(item._replace(how="repeated") if repeated else item)
    return ordered
