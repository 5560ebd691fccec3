"""Zip, tar and parquet files, alone or in a folder: every file in them and beside them is listed."""

import struct
import tarfile
import zipfile

from pipelines.images.file_names import IgnoreReason, is_image_name, why_ignored
from pipelines.prepare.sources.class_labels import NO_LABELS
from pipelines.prepare.sources.items import Ignored, Listing, SourceItem
from pipelines.prepare.sources.parquet_files import Columns, list_parquet
from pipelines.prepare.sources.tar_files import list_tar
from pipelines.prepare.sources.zip_files import list_zip
from pipelines.storage.uris import join, open_seekable
from sr3core.errors import MissingError, Sr3Error

ARCHIVES = {".zip": "zip", ".tar": "tar", ".parquet": "parquet"}
"""Endings of the archives that are read -> kind."""

_DAMAGE = (
    *(zipfile.BadZipFile, tarfile.TarError, struct.error),
    *(ValueError, OSError, EOFError, NotImplementedError, OverflowError),
)
"""What the libraries raise for damaged archives; errors of the storage are ours, and pass."""


def kind_of(name: str) -> str | None:
    """The kind of archive that a name is one of; None if it is none that is read."""
    return next((kind for end, kind in ARCHIVES.items() if name.lower().endswith(end)), None)


def beside_archives(path: str) -> Ignored:
    """Why a file among archives of another kind is ignored."""
    reason = None if is_image_name(path) else why_ignored(path)
    return Ignored(path, reason or IgnoreReason.NOT_IN_LAYOUT, SourceItem(path, path))


def list_archive(uri: str, kind: str, columns: Columns, path: str) -> Listing:
    """List the images in an archive; a damaged one becomes an item that is rejected by name.

    Args:
        uri: the source.
        kind: "zip", "tar" or "parquet".
        columns: what is read of parquet files.
        path: the archive, relative to uri; "" if uri is itself the archive.

    Raises:
        StorageError: the archive cannot be read, perhaps only at the moment.
        DataError, ConfigError: it cannot be known what its labels or columns mean.
    """
    try:
        yield from _list_archive(uri, kind, path, columns)
    except MissingError as error:  # a link to nowhere
        yield SourceItem(path or uri, path, "damaged", problem=str(error))
    except Sr3Error:
        raise
    except _DAMAGE as error:
        yield SourceItem(path or uri, path, "damaged", problem=f"not a readable {kind} file: {error}")


def _list_archive(uri: str, kind: str, path: str, columns: Columns) -> Listing:
    with open_seekable(join(uri, path) if path else uri, from_front=kind == "tar") as file:
        if kind == "parquet":
            yield from list_parquet(file, path, columns)
        else:
            yield from (list_zip if kind == "zip" else list_tar)(file, path, columns.label != NO_LABELS)
