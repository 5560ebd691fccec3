"""A source, whatever its layout: list it once as items, then read any item."""

from collections.abc import Iterable
from functools import partial
from pathlib import Path

from pipelines.images.file_names import (
    COMPRESSED_TARS,
    MAX_FILE_BYTES,
    IgnoredFiles,
)
from pipelines.images.folder_files import each_file_below
from pipelines.images.rejects import DecodeError, RejectReason
from pipelines.prepare.sources import layouts
from pipelines.prepare.sources.archives import ARCHIVES, beside_archives, kind_of
from pipelines.prepare.sources.bucket_files import files_in_bucket
from pipelines.prepare.sources.items import Source, SourceItem
from pipelines.prepare.sources.listed_parts import (
    FileList,
    Survey,
    choose_items,
    decode_files,
    list_archive_whole,
    list_files,
)
from pipelines.prepare.sources.parquet_files import Columns, read_row
from pipelines.prepare.sources.tar_files import read_sparse
from pipelines.prepare.sources.zip_files import read_zipped
from pipelines.runtime.tasks import map_in_tasks
from pipelines.storage.uris import (
    exists,
    is_file,
    is_folder,
    is_remote,
    join,
    name_of,
    parent_of,
    read_bytes,
    read_range,
    size_of,
)
from sr3core.errors import ConfigError, DataError, MissingError, StorageError


def open_source(
    uri: str,
    layout: str = "auto",
    *,
    will_align: bool = False,
    outputs: Iterable[str] = (),
    columns: Columns = Columns(),  # noqa: B008
) -> Source:
    """List the images of a source; each of its files is among the images or among those ignored.

    Args:
        uri: folder, archive or s3:// prefix.
        layout: how it is laid out; "auto" detects it from the names.
        will_align: whether faces will be aligned, so that unaligned ones are acceptable.
        outputs: folders that are written to: what is in them is not part of the source.
        columns: what is read of parquet files.

    Raises:
        DataError: it does not exist, holds no images, unaligned faces, or images beside archives of images.
        ConfigError: it is not of the given layout.
        StorageError: it cannot be listed, perhaps only at the moment.
    """
    if not exists(uri):
        raise DataError(f"source: {uri} does not exist; give a folder, archive or s3:// prefix of images")
    ignored = IgnoredFiles()
    files = _files_of(uri, outputs, ignored)
    if not files.num_files and not ignored:
        raise DataError(f"source: {uri} holds no images: it is empty; name another folder")
    container = _container(uri, layout, files)
    survey = Survey(ignored)
    if container == "files":
        survey.add(map_in_tasks(list_files, files))
    else:
        archives = _archives(container, files, survey)
        survey.add(map_in_tasks(partial(list_archive_whole, uri, container, columns), archives))
    rule, choose = _rule(uri, layout, container, survey, will_align)
    if choose is not None:
        chosen = map_in_tasks(partial(choose_items, choose), survey.parts)
        survey = Survey(ignored)
        survey.add(chosen)
    source = Source(uri, container, rule, survey.parts, ignored, survey.classes.class_names())
    if not survey.is_usable:
        raise DataError(_no_images(source))
    return source


def read_item(uri: str, item: SourceItem, image_column: str = "") -> bytes:
    """Read the bytes of one image.

    Args:
        uri: the source.
        item: the image.
        image_column: of parquet files, as in Columns.

    Raises:
        DecodeError: it cannot be read, now or ever; carries the reason.
        StorageError: it cannot be read, perhaps only at the moment: nothing is known about the image.
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
        if item.how == "sparse":
            return read_sparse(path, item)
        return read_row(path, item, image_column) if item.how == "row" else read_zipped(path, item)
    except MissingError as error:
        _refuse_lost_storage(path, item)
        raise DecodeError(RejectReason.UNREADABLE, str(error)) from error


def _refuse_lost_storage(path: str, item: SourceItem) -> None:
    """Tell an image that is gone from a disk that is gone, and with it every image.

    Raises:
        StorageError: so is its archive, or all of its folder.
    """
    if item.how != "file":
        if not exists(path):
            raise StorageError(f"{path}: the archive has gone since it was listed; is its disk still mounted?")
    elif not is_remote(path):
        folder = Path(parent_of(path))
        if not folder.is_dir() or next(folder.iterdir(), None) is None:
            raise StorageError(f"{path}: gone, with everything in its folder; is its disk still mounted?")


def _files_of(uri: str, outputs: Iterable[str], ignored: IgnoredFiles) -> FileList:
    """The files that may be images or archives, or the one file; the others are ignored."""
    if is_file(uri):
        return FileList([("", size_of(uri))])
    if not is_remote(uri) and not is_folder(uri):
        raise DataError(f"source: {uri} is neither a file nor a folder but a pipe, socket or device; name one of those")
    below = files_in_bucket if is_remote(uri) else each_file_below
    return FileList(below(uri, ignored, outputs=tuple(outputs)))


def _container(uri: str, layout: str, files: FileList) -> str:
    """What holds the images: "files", or the kind of the archives."""
    if layout in ARCHIVES.values():
        return layout
    if files.is_alone:
        if found := kind_of(name_of(uri)):
            return found
        compressed = name_of(uri).lower().endswith(COMPRESSED_TARS)
        remedy = "decompress it to a .tar first" if compressed else "use a folder, .zip, .tar or .parquet"
        raise DataError(f"source: {uri} is a file that cannot be read image by image; {remedy}")
    if layout != "auto" and files.kinds["files"]:
        return "files"
    found = sorted(files.kinds)
    if len(found) > 1:
        raise DataError(_mixture(uri, found, files))
    return found[0] if found else "files"


def _mixture(uri: str, kinds: Iterable[str], files: FileList) -> str:
    examples, choices = [], []
    for kind in kinds:
        what = "images" if kind == "files" else f"{kind} files"
        examples.append(f"{files.kinds[kind]} {what} such as {files.first[kind]!r}")
        choices.append(f"--layout {'folder' if kind == 'files' else kind}")
    return (
        f"source: {uri} holds {' and '.join(examples)}, and only one kind can be read at once: choose by"
        f" {' or '.join(choices)}; the others are then ignored"
    )


def _archives(kind: str, files: FileList, survey: Survey) -> list[str]:
    """The archives of a kind, in order; other files are ignored."""
    found = []
    for path, _ in (file for part in files for file in decode_files(part)):
        if path and kind_of(path) != kind:
            survey.ignore(beside_archives(path))
        else:
            found.append(path)
    return sorted(found)


def _rule(uri: str, layout: str, container: str, survey: Survey, will_align: bool) -> tuple[str, layouts.Rule | None]:
    """The rule of the layout; None in its place if it takes every image as it is."""
    is_given = layout != "auto" and layout not in ARCHIVES.values()
    if container == "parquet":
        if is_given and layout != "folder":
            raise ConfigError(f"layout: {layout} goes by names of files, and {uri} is parquet; use auto or parquet")
        return "folder", None
    if layout == "imagefolder" and container != "files" and survey.parts.num_items and not is_file(uri):
        raise ConfigError(
            f"layout: {uri} is a folder of {container} files; for imagefolder, give one of them as source"
        )
    names = survey.names.names()
    texts = {name: partial(read_item, uri, item) for name, item in survey.texts.items()}
    rule = layout if is_given else layouts.detect(uri, names, texts)
    if rule == "folder":
        return rule, None
    return rule, layouts.make_rule(rule, uri, names, texts, will_align)


def _no_images(source: Source) -> str:
    problem = next((f"; {item.name!r}: {item.problem}" for item in source.items if item.problem), "")
    others = f", but {len(source.ignored)} other files: {source.ignored.describe()}" if source.ignored else ""
    compressed = any(name.lower().endswith(COMPRESSED_TARS) for name, _ in source.ignored)
    remedy = "; compressed tars cannot be read image by image: decompress them to .tar first" if compressed else ""
    return f"source: {source.uri} holds no images (read as layout {source.layout}){others}{remedy}{problem}"
