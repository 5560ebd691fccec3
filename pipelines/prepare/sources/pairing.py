"""Given pairs: each image of a source with its low-resolution image of another one, joined by their names.

An external hash join: tasks sort both sources into buckets by a hash of the names, then join a bucket at a time.
"""

import pickle
import posixpath
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple

from pipelines.images.file_names import IgnoredFiles, IgnoreReason, is_image_name
from pipelines.prepare.sources.items import Parts, Source, SourceItem, decode_items, encode_items
from pipelines.runtime.tasks import map_in_tasks
from pipelines.storage.spool import Extent, Spool
from sr3core.errors import DataError

NUM_BUCKETS = 64
"""Buckets that both sources are sorted into."""


class Side(NamedTuple):
    """How the images of one of the two sources are named."""

    suffix: str = ""
    """What their names end in before the extension, and those of the others do not: "x4" of 0001x4.png."""
    root: str = ""
    """Folder that all of them lie in, with a trailing slash, which is no part of their names."""

    def key_of(self, name: str) -> str | None:
        """What an image's name and that of its pair have in common; None if it is none of this side's."""
        stem = posixpath.splitext(name)[0] if is_image_name(name) else name  # a row of a table may have no file name
        if not stem.endswith(self.suffix) or not stem.startswith(self.root):
            return None
        return stem[len(self.root) : len(stem) - len(self.suffix)]


@dataclass(slots=True)
class _Joined:
    """What the join of a bucket gives."""

    items: list[SourceItem] = field(default_factory=list)
    ignored: list[tuple[str, IgnoreReason]] = field(default_factory=list)
    num_pairs: int = 0


def pair_sources(high: Source, low: Source, high_suffix: str = "", low_suffix: str = "") -> Source:
    """The pairs of two sources: the images of the first one, each with its image of the second one.

    Two images are a pair if their names, relative to their sources, are the same but for the extension and the
    suffixes. Where no two are, names count from the deepest folder that holds all images of their source. All others
    are among the ignored files of the result; places where an archive is damaged stay images, which are rejected.

    Args:
        high: the images.
        low: the low-resolution images.
        high_suffix, low_suffix: see Side.

    Raises:
        DataError: there are no pairs.
    """
    sides = Side(high_suffix), Side(low_suffix)
    found = _join(high, low, sides)
    if not found.num_pairs:
        sides = Side(high_suffix, _common_folder(high)), Side(low_suffix, _common_folder(low))
        found = _join(high, low, sides)
    if not found.num_pairs:
        raise DataError(_no_pairs(high, low, sides))
    return replace(high, parts=found.parts, ignored=found.ignored)


def of_low(name: str) -> str:
    """What an image of the source of low-resolution images is called beside those of the other source."""
    return f"{name} (of --low)"


@dataclass(slots=True)
class _Found:
    """What a join gives."""

    parts: Parts
    ignored: IgnoredFiles
    num_pairs: int = 0


def _join(high: Source, low: Source, sides: tuple[Side, Side]) -> _Found:
    found = _Found(Parts(), IgnoredFiles())
    found.ignored.update(high.ignored)
    for name, reason in low.ignored:
        found.ignored.add(of_low(name), reason)
    buckets = [_Buckets(source, side) for source, side in zip((high, low), sides, strict=True)]
    loads = ((buckets[0].read(number), buckets[1].read(number)) for number in range(NUM_BUCKETS))
    for joined in map_in_tasks(_join_bucket, loads):
        found.num_pairs += joined.num_pairs
        if joined.items:
            found.parts.add(encode_items(joined.items), len(joined.items))
        for name, reason in joined.ignored:
            found.ignored.add(name, reason)
    return found


class _Buckets:
    """A source's images by a hash of their keys."""

    def __init__(self, source: Source, side: Side) -> None:
        self._spool = Spool()
        self._extents: dict[int, list[Extent]] = defaultdict(list)
        for blocks in map_in_tasks(partial(_sort_part, side), source.parts):
            for number, block in blocks.items():
                self._extents[number].append(self._spool.append(block))

    def read(self, number: int) -> list[bytes]:
        """The blocks of a bucket."""
        return [self._spool.read(extent) for extent in self._extents.get(number, ())]


_Row = tuple[str | None, SourceItem]
"""An image with its key; None if it belongs to no pair."""


def _sort_part(side: Side, part: bytes) -> dict[int, bytes]:
    """Bucket -> the images of a part that are in it: one task."""
    rows: dict[int, list[_Row]] = defaultdict(list)
    for item in decode_items(part):
        key = side.key_of(item.name) if _is_image(item) else None
        rows[zlib.crc32((key or "").encode("utf-8", "surrogateescape")) % NUM_BUCKETS].append((key, item))
    return {number: pickle.dumps(some, pickle.HIGHEST_PROTOCOL) for number, some in rows.items()}


def _join_bucket(blocks: tuple[list[bytes], list[bytes]]) -> _Joined:
    """The pairs of a bucket: one task."""
    joined = _Joined()
    highs, lows = (_by_key(rows) for rows in blocks)
    for key in sorted({*highs, *lows}, key=lambda key: (key is not None, key or "")):
        here = highs.get(key, [])
        there = [item._replace(name=of_low(item.name)) for item in lows.get(key, [])]
        if key is None:
            _add_keyless(joined, [*here, *there])
        elif not here or not there:
            _ignore(joined, [*here, *there], IgnoreReason.UNPAIRED)
        elif len({item.name for item in here}) > 1 or len(there) > 1:
            _ignore(joined, [*here, *there], IgnoreReason.AMBIGUOUS)
        else:
            joined.items += [item._replace(low=lows[key][0]) for item in here]
            joined.num_pairs += 1
    return joined


def _by_key(blocks: Iterable[bytes]) -> dict[str | None, list[SourceItem]]:
    found: dict[str | None, list[SourceItem]] = defaultdict(list)
    for key, item in (row for block in blocks for row in pickle.loads(block)):
        found[key].append(item)
    return found


def _add_keyless(joined: _Joined, items: Sequence[SourceItem]) -> None:
    """Images of another suffix are ignored; places where an archive is damaged are rejected later, by name."""
    joined.items += [item for item in items if item.how == "damaged"]
    _ignore(joined, [item for item in items if item.how != "damaged"], IgnoreReason.UNPAIRED)


def _ignore(joined: _Joined, items: Iterable[SourceItem], reason: IgnoreReason) -> None:
    joined.ignored += [(item.name, reason) for item in items]


def _common_folder(source: Source) -> str:
    """The deepest folder that holds all images of a source, with a trailing slash; "" if that is the source itself."""
    common: list[str] | None = None
    for name in _names(source):
        folders = name.split("/")[:-1]
        if common is None:
            common = folders
        while folders[: len(common)] != common:
            common.pop()
    return "".join(f"{folder}/" for folder in common or ())


def _names(source: Source) -> Iterator[str]:
    return (item.name for part in source.parts for item in decode_items(part) if _is_image(item))


def _is_image(item: SourceItem) -> bool:
    """Whether an item is an image, and not a place where an archive is damaged."""
    return item.how != "damaged" or is_image_name(item.name)


def _no_pairs(high: Source, low: Source, sides: tuple[Side, Side]) -> str:
    described = [
        f"{source.num_images} images such as {min(_names(source), default='')!r}"
        + (f" ({sum(side.key_of(name) is not None for name in _names(source))} end in {side.suffix!r})")
        * bool(side.suffix)
        for source, side in zip((high, low), sides, strict=True)
    ]
    return (
        f"low: no image of {high.uri} has its pair in {low.uri}: there are {described[0]} and {described[1]}. The names"
        " of a pair must be the same but for the extension; give --low-suffix x4 for pairs like 0001.png and 0001x4.png"
    )
