"""Whether a result has a place, asked before it is computed."""

import os

from pipelines.storage.local_files import MAX_NAME_BYTES
from pipelines.storage.uris import absolute, is_file, is_folder, is_remote, name_of, parent_of
from sr3core.errors import ConfigError, StorageError


def refuse_unwritable_folder(folder: str) -> None:
    """Refuse a folder that cannot be written to; it need not exist. A bucket is not asked.

    Raises:
        ConfigError: it is a file, or below one.
        StorageError: this user may not write there, or the disk is read-only.
    """
    if is_remote(folder):
        return
    if is_file(folder):
        raise ConfigError(f"{folder} is a file; choose a folder")
    if any(len(os.fsencode(part)) > MAX_NAME_BYTES for part in absolute(folder).split(os.sep)):
        raise ConfigError(f"{folder}: a name in it is longer than {MAX_NAME_BYTES} bytes; choose a shorter one")
    path = nearest_that_exists(absolute(folder))
    if not os.path.isdir(path):
        raise ConfigError(f"{folder} cannot be a folder: {path} is a file; choose another one")
    if not os.access(path, os.W_OK | os.X_OK):
        raise StorageError(f"{folder} cannot be written to: {path} is read-only for this user; choose another folder")


def refuse_unwritable_file(option: str, path: str | None, suffix: str) -> None:
    """Refuse a file that an option names for a result, if it cannot be written; None is no file.

    Args:
        option: the option, without dashes.
        path: the file.
        suffix: how its name ends: ".png". A name that ends otherwise may be a slip, and the file another one.

    Raises:
        ConfigError: it is a folder, or below a file, or its name ends otherwise.
        StorageError: its folder cannot be written to.
    """
    if path is None:
        return
    if is_folder(path):
        raise ConfigError(f"{option}: {path} is a folder; name a {suffix} file")
    if not name_of(path).lower().endswith(suffix):
        raise ConfigError(f"{option}: {path} does not end in {suffix}; name a {suffix} file")
    if not is_remote(path):
        refuse_unwritable_folder(parent_of(path))


def nearest_that_exists(path: str) -> str:
    """The path itself, or the nearest folder above it that exists."""
    while not os.path.lexists(path):
        path = os.path.dirname(path)
    return path
