"""Which content the files of a folder have, told without reading them."""

import os

from pipelines.storage.buckets import s3
from pipelines.storage.local_files import local_errors
from pipelines.storage.uris import absolute, is_remote


def list_versions(folder: str) -> dict[str, str]:
    """Name -> version of every file in a folder or below a prefix; empty if there is no such folder.

    A file that is replaced has another version: an ETag in a bucket; on a disk its number, size and time, which a copy
    does not share.

    Raises:
        StorageError: the folder cannot be listed.
    """
    if is_remote(folder):
        return dict(s3.list_versions(folder))
    path = absolute(folder)
    if not os.path.isdir(path):
        return {}
    with local_errors(path), os.scandir(path) as entries:
        return {entry.name: _version(entry.stat()) for entry in entries if entry.is_file()}


def _version(status: os.stat_result) -> str:
    return f"{status.st_ino}-{status.st_size}-{status.st_mtime_ns}"
