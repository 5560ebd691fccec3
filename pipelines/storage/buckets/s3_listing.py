"""Listing a prefix of a bucket side by side: one page of 1,000 names after another, 100 million would take hours."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

from pipelines.storage.buckets import s3, s3_client

ENOUGH_BRANCHES = 512
"""Branches beyond which no folder is divided further."""
ENOUGH_RANGES = 64
"""Branches beyond which none is divided by its names."""
_NUM_REQUESTS = 32
"""Requests under way at once."""
_MAX_PAGES = 32
"""Pages of 1,000 objects and folders that are read to divide a folder; one that has more is listed in one go."""
_PAGES_WITHOUT_FOLDERS = 2
"""Pages after which a folder that has shown no folders is taken to have none."""
_PAGES_AT_ONCE = 16
"""Pages of a branch that are listed at once; it is left for later, or divided, if it has more."""
_PAGE_NAMES = 1000
"""Names of a page; S3 gives no more."""
_MAX_RANGES = 128
"""Ranges into which a branch is divided at once: more characters than names of files usually have at one place."""
_BEHIND_ALL = "\U0010ffff"
"""The last character that there is: behind a text with it are all names that begin with the text."""
_UNORDERED = "--x-s3"
"""What the names of S3's directory buckets end in, whose listings are in no order."""

Found = tuple[str, int]
"""Name relative to the prefix, and bytes, of an object."""


class Branch(NamedTuple):
    """A part of a listing; all of them are the whole of it."""

    folder: str = ""
    """What is to be listed, relative to the prefix, with a slash at its end; "" for all."""
    is_whole: bool = False
    """Whether it is not to be divided."""
    objects: tuple[Found, ...] = ()
    """What has been found instead."""
    after: str = ""
    """The name, relative to the prefix, behind which it begins; "" for the folder's beginning."""
    until: str = ""
    """The last name that may be in it; "" for the folder's end."""
    token: str = ""
    """Where the server goes on with it, if a part of it has been listed."""


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


def list_branches(uri: str, some: Sequence[Branch]) -> tuple[list[Found], list[Branch]]:
    """List some branches, a bounded number of pages of each: their objects, and what is left of them.

    Raises:
        StorageError: they cannot be listed, perhaps only at the moment.
    """
    with ThreadPoolExecutor(_NUM_REQUESTS) as pool:
        listed = list(pool.map(partial(_list, uri), some))
    return [found for objects, _ in listed for found in objects], [left for _, left in listed if left is not None]


def divide_by_names(uri: str, left: Sequence[Branch]) -> list[Branch]:
    """Divide what is left of branches by the next character of their names, if there are few branches.

    A request for one name tells which character comes next, whatever characters there are: of hexadecimal names, 16
    requests give 16 ranges.

    Raises:
        StorageError: they cannot be listed, perhaps only at the moment.
    """
    if len(left) >= ENOUGH_RANGES or s3_client.parse(uri).bucket.endswith(_UNORDERED):
        return list(left)
    with ThreadPoolExecutor(_NUM_REQUESTS) as pool:
        return [part for parts in pool.map(partial(_ranges, uri), left) for part in parts]


def _list(uri: str, branch: Branch) -> tuple[Sequence[Found], Branch | None]:
    if branch.objects:
        return branch.objects, None
    found: list[Found] = []
    last = branch.after
    begins = {"StartAfter": _prefix(uri) + branch.after} if branch.after and not branch.token else {}
    for number, page in enumerate(_pages(uri, branch.folder, branch.token, **begins), 1):
        objects = _objects(uri, page)
        inside = [(name, size) for name, size in objects if not branch.until or name <= branch.until]
        found += inside
        if len(inside) < len(objects):
            break
        if page.get("Contents"):  # a page may be empty, and not be the last
            last = page["Contents"][-1]["Key"][len(_prefix(uri)) :]
        if number == _PAGES_AT_ONCE and page.get("IsTruncated"):
            return found, branch._replace(after=last, token=page["NextContinuationToken"])
    return found, None


def _ranges(uri: str, branch: Branch) -> list[Branch]:
    """What is left of a branch, divided at the first character in which its names differ."""
    begin = len(branch.folder)
    bounds: list[str] = []
    for end in range(begin + 1, len(branch.after) + 1):
        bound = branch.after[:end] + _BEHIND_ALL
        while len(bounds) < _MAX_RANGES and (name := _first_behind(uri, branch, bound)):
            bounds.append(bound)
            bound = name[:end] + _BEHIND_ALL
        if bounds:
            break
    ends = [*bounds, branch.until]
    return [branch._replace(until=ends[0])] + [
        branch._replace(after=after, until=until, token="") for after, until in zip(bounds, ends[1:], strict=True)
    ]


def _first_behind(uri: str, branch: Branch, bound: str) -> str | None:
    """The first name of a branch behind a text; None if there is none, or the server does not begin there."""
    page = next(_pages(uri, branch.folder, StartAfter=_prefix(uri) + bound, MaxKeys=1))
    name = next((item["Key"][len(_prefix(uri)) :] for item in page.get("Contents", ())), "")
    return name if name > bound and (not branch.until or name <= branch.until) else None


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


def _pages(uri: str, folder: str, token: str = "", **options: Any) -> Iterator[dict[str, Any]]:
    with s3_client.requests_on(uri) as (client, place):
        asked = {"Bucket": place["Bucket"], "Prefix": _prefix(uri) + folder, "MaxKeys": _PAGE_NAMES, **options}
        while True:
            page = client.list_objects_v2(**asked, **({"ContinuationToken": token} if token else {}))
            yield page
            token = page.get("NextContinuationToken", "")
            if not (token and page.get("IsTruncated")):
                return
