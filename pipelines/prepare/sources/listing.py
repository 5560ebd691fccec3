"""A source, whatever its layout: list it once as items, then read any item."""

from pipelines.images.file_names import MAX_FILE_BYTES
from pipelines.images.rejects import DecodeError, RejectReason
from pipelines.prepare.sources import archives, layouts
from pipelines.prepare.sources.items import Source, SourceItem
from pipelines.storage.uris import exists, is_file, join, list_files, name_of, read_bytes, read_range, size_of
from sr3core.errors import ConfigError, DataError, StorageError

_ARCHIVES = {".zip": "zip", ".tar": "tar", ".parquet": "parquet"}


def open_source(uri: str, layout: str = "auto", will_align: bool = False) -> Source:
    """List the images of a source.

    Args:
        uri: folder, archive or s3:// prefix.
        layout: how it is laid out; "auto" detects it from the names.
        will_align: whether faces will be aligned, so that unaligned ones are acceptable.

    Raises:
        DataError: it does not exist, holds no images, or holds unaligned faces.
        ConfigError: it is not of the given layout.
    """
    if not exists(uri):
        raise DataError(f"source: {uri} does not exist; give a folder, archive or s3:// prefix of images")
    files = {"": size_of(uri)} if is_file(uri) else dict(list_files(uri))
    if not files:
        raise DataError(f"source: {uri} holds no images: it is empty")
    found = _detect(uri, files) if layout == "auto" else layout
    if found == "ffhq" and will_align:
        found = "folder"  # all photos, however they are arranged
    source = _list(uri, found, files)
    if not any(item.how not in ("damaged", "repeated") for item in source.items):
        raise DataError(_no_images(source))
    return source


def read_item(uri: str, item: SourceItem) -> bytes:
    """Read the bytes of one image.

    Args:
        uri: the source.
        item: the image.

    Raises:
        DecodeError: it cannot be read; carries the reason.
    """
    path = join(uri, item.path) if item.path else uri
    if item.how == "repeated":
        raise DecodeError(RejectReason.DUPLICATE, "the source holds this name more than once; the first image is used")
    if item.how == "damaged":
        raise DecodeError(RejectReason.UNREADABLE, item.problem)
    if item.how != "row" and item.size > MAX_FILE_BYTES:
        raise DecodeError(RejectReason.TOO_LARGE, f"{item.size} bytes are more than {MAX_FILE_BYTES}")
    try:
        if item.how == "file":
            return read_bytes(path)
        if item.how == "range":
            return read_range(path, item.offset, item.size)
        return archives.read_row(path, item) if item.how == "row" else archives.read_zipped(path, item)
    except StorageError as error:
        raise DecodeError(RejectReason.UNREADABLE, str(error)) from error


def _detect(uri: str, files: dict[str, int]) -> str:
    """Detect the layout of a source from its names."""
    if "" in files:
        name = name_of(uri).lower()
        found = next((layout for end, layout in _ARCHIVES.items() if name.endswith(end)), None)
        if found is None:
            compressed = name.endswith((".tar.gz", ".tgz", ".tar.xz", ".tar.bz2", ".tar.zst"))
            remedy = "decompress it to a .tar first" if compressed else "use a folder, .zip, .tar or .parquet"
            raise DataError(f"source: {uri} is a file that cannot be read image by image; {remedy}")
        return found
    if found := layouts.detect(uri, files):
        return found
    for end, found in _ARCHIVES.items():
        if any(name.lower().endswith(end) for name in files):
            return found
    return "folder"


def _list(uri: str, layout: str, files: dict[str, int]) -> Source:
    if layout in _ARCHIVES.values():
        return archives.list_archives(uri, layout, files)
    if "" in files:
        raise ConfigError(f"layout: {layout} is for folders, and {uri} is a file; use auto")
    return layouts.list_layout(uri, layout, files)


def _no_images(source: Source) -> str:
    problem = next((f"; {item.name!r}: {item.problem}" for item in source.items if item.problem), "")
    names = ", ".join(repr(name) for name in source.ignored[:3])
    others = f", but {len(source.ignored)} other files such as {names}" if names else ""
    return f"source: {source.uri} holds no images (read as layout {source.layout}){others}{problem}"
