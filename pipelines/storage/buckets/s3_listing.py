"""Listing a prefix of a bucket side by side: one page of 1,000 names after another, 100 million would take hours."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from pipelines.storage.buckets import s3, s3_client

ENOUGH_BRANCHES = 512
"""Branches beyond which none is divided further."""
_NUM_REQUESTS = 32
"""Requests under way at once."""
_MAX_PAGES = 32
"""Pages of 1,000 objects and folders that are read to divide a folder; one that has more is listed in one go."""
_PAGES_WITHOUT_FOLDERS = 2
"""Pages after which a folder that has shown no folders is taken to have none."""

Found = tuple[str, int]
"""Name relative to the prefix, and bytes, of an object."""


class Branch(NamedTuple):
    """A part of a listing; all of them, in their order, are the whole of it, in the order of the keys."""

    folder: str = ""
    """What is to be listed, relative to the prefix, with a slash at its end; "" for all."""
    is_whole: bool = False
    """Whether it is not to be divided."""
    objects: tuple[Found, ...] = ()
    """What has been found instead."""


def branches(uri: str) -> list[Branch]:
    """Divide a prefix by its folders, and those by theirs, until there are enough branches or no folders in them.

    Raises:
        StorageError: it cannot be listed, perhaps only at the moment.
    """
    found = [Branch()]
    with ThreadPoolExecutor(_NUM_REQUESTS) as pool:
        while len(found) < ENOUGH_BRANCHES and not all(branch.is_whole for branch in found):
            divided = pool.map(lambda branch: _divided(uri, branch), found)
            found = [part for parts in divided for part in parts]
    return found


def list_branches(uri: str, some: Sequence[Branch]) -> Iterator[Found]:
    """Yield the objects of some branches, in order.

    Raises:
        StorageError: they cannot be listed, perhaps only at the moment.
    """
    with ThreadPoolExecutor(_NUM_REQUESTS) as pool:
        for objects in pool.map(lambda branch: _list(uri, branch), some):
            yield from objects


def _list(uri: str, branch: Branch) -> Sequence[Found]:
    if branch.objects:
        return branch.objects
    return [found for page in _pages(uri, branch.folder) for found in _objects(uri, page)]


def _divided(uri: str, branch: Branch) -> list[Branch]:
    """The branches of a branch, in order: objects and folders. Itself, whole, if it has no folders, or too many."""
    if branch.is_whole:
        return [branch]
    parts: list[tuple[str, Branch]] = []
    num_folders = 0
    for number, page in enumerate(_pages(uri, branch.folder, Delimiter="/"), 1):
        folders = [item["Prefix"][len(_prefix(uri)) :] for item in page.get("CommonPrefixes", ())]
        parts += [(found[0], Branch(is_whole=True, objects=(found,))) for found in _objects(uri, page)]
        parts += [(folder, Branch(folder)) for folder in folders]
        num_folders += len(folders)
        if number == (_MAX_PAGES if num_folders else _PAGES_WITHOUT_FOLDERS):
            break
    else:
        if num_folders:
            return [part for _, part in sorted(parts)]
    return [branch._replace(is_whole=True)]


def _objects(uri: str, page: dict[str, Any]) -> list[Found]:
    items = (item for item in page.get("Contents", ()) if not s3.is_marker(item))
    return [(item["Key"][len(_prefix(uri)) :], item["Size"]) for item in items]


def _prefix(uri: str) -> str:
    key = s3_client.parse(uri).key
    return f"{key}/" if key else ""


def _pages(uri: str, folder: str, **options: str) -> Iterator[dict[str, Any]]:
    with s3_client.requests_on(uri) as (client, place):
        pages = client.get_paginator("list_objects_v2")
        yield from pages.paginate(Bucket=place["Bucket"], Prefix=_prefix(uri) + folder, **options)
