"""Zip, tar and parquet files: they are listed once, then every image is read on its own by its place in the file."""

import io
import json
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from functools import lru_cache
from typing import IO, Any

from pipelines.images.file_names import MAX_FILE_BYTES, is_image_name
from pipelines.images.rejects import DecodeError, RejectReason
from pipelines.prepare.sources.imagenet_classes import CLASS_INDEX
from pipelines.prepare.sources.items import How, Source, SourceItem, in_order
from pipelines.prepare.sources.layouts import synset_in
from pipelines.storage.range_file import RangeFile
from pipelines.storage.uris import join, open_seekable, read_range
from sr3core.errors import StorageError

_LOCAL_HEADER = struct.Struct("<4s5H3I2H")
_ENCRYPTED = 1
_HOW: dict[int, How] = {zipfile.ZIP_STORED: "stored", zipfile.ZIP_DEFLATED: "deflated"}
_IMAGE_COLUMNS = ("image", "img", "jpg", "png", "webp")
_LABEL_COLUMNS = ("label", "cls", "class")


def list_archives(uri: str, layout: str, files: dict[str, int]) -> Source:
    """List the images in an archive, or in all archives of one kind in a folder.

    A damaged archive becomes an item that is rejected by name.

    Args:
        uri: the archive, or the folder.
        layout: "zip", "tar" or "parquet".
        files: name relative to uri -> size; {"": size} if uri is itself the archive.
    """
    listing = {"zip": _list_zip, "tar": _list_tar, "parquet": _list_parquet}[layout]
    end = f".{layout}"
    items: list[Any] = []
    ignored: list[Any] = []
    for path in sorted(files):
        if path and not path.lower().endswith(end):
            ignored.append(path)
            continue
        try:
            with open_seekable(join(uri, path) if path else uri) as file:
                for item in listing(file, path):
                    (ignored if isinstance(item, str) else items).append(item)
        except (zipfile.BadZipFile, tarfile.TarError, OSError, ValueError, StorageError) as error:
            items.append(SourceItem(path or uri, path, "damaged", problem=f"not a readable {layout} file: {error}"))
    return Source(uri, layout, in_order(items), sorted(ignored))


def read_zipped(path: str, item: SourceItem) -> bytes:
    """Read a zip member and check its CRC-32.

    Raises:
        DecodeError: the member is damaged.
    """
    header = _LOCAL_HEADER.unpack(read_range(path, item.offset, _LOCAL_HEADER.size))
    if header[0] != b"PK\3\4":
        raise DecodeError(RejectReason.CORRUPT, "the zip has no member where its directory states one")
    start = item.offset + _LOCAL_HEADER.size + header[-2] + header[-1]
    data = read_range(path, start, item.size)
    if item.how == "deflated":
        try:
            data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, MAX_FILE_BYTES)
        except zlib.error as error:
            raise DecodeError(RejectReason.CORRUPT, f"the zip member cannot be inflated: {error}") from error
    if zlib.crc32(data) != item.crc:
        raise DecodeError(RejectReason.CORRUPT, "the zip member's checksum is wrong")
    return data


def read_row(path: str, item: SourceItem) -> bytes:
    """Read the image in a parquet row; the row group stays in memory for the next row.

    Raises:
        DecodeError: the row holds no bytes.
    """
    value = _row_group(path, item.offset)[item.size].as_py()
    data = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(data, bytes):
        raise DecodeError(RejectReason.UNREADABLE, "the parquet row holds no image bytes")
    return data


def _list_zip(file: IO[bytes], path: str) -> Iterator[SourceItem | str]:
    """List a StyleGAN dataset, whose dataset.json holds labels, or any other zip of images."""
    with zipfile.ZipFile(file) as archive:
        labels = _zip_labels(archive)
        for member in archive.infolist():
            if member.is_dir():
                continue
            name = f"{path}/{member.filename}" if path else member.filename
            if not is_image_name(name):
                yield name
                continue
            how = _HOW.get(member.compress_type, "damaged")
            problem = "" if how != "damaged" else f"compressed by method {member.compress_type}; zip it again"
            if member.flag_bits & _ENCRYPTED:
                how, problem = "damaged", "encrypted"
            item = SourceItem(name, path, how, member.header_offset, member.compress_size, member.CRC)
            yield item._replace(label=labels.get(member.filename), problem=problem)


def _zip_labels(archive: zipfile.ZipFile) -> dict[str, int]:
    if "dataset.json" not in archive.namelist():
        return {}
    rows = json.loads(archive.read("dataset.json")).get("labels") or []
    return {name: label for name, label in rows if isinstance(label, int)}


def _list_tar(file: IO[bytes], path: str, base: int = 0, inside: str = "") -> Iterator[SourceItem | str]:
    """List a WebDataset shard, any tar of images, or ILSVRC's tar with a tar for each synset.

    Offsets are relative to the outer file.

    Args:
        file: the tar, from its own byte 0.
        path: the outer file, relative to the source.
        base: where the tar begins in the outer file.
        inside: its name there, with a trailing slash.
    """
    prefix = f"{path}/{inside}" if path else inside
    labels: dict[str, int] = {}
    images: list[tuple[str, str, int, int]] = []
    with tarfile.open(fileobj=file, mode="r:") as archive:
        try:
            for member in archive:
                key, extension = _split_name(member.name)
                if not member.isreg():
                    continue
                if extension == "tar":
                    inner = io.BufferedReader(_slice(file, member.offset_data, member.size))
                    yield from _list_tar(inner, path, base + member.offset_data, f"{inside}{member.name}/")
                elif extension == "cls":
                    labels[key] = int(_read_at(file, member.offset_data, member.size))
                elif is_image_name(member.name) and not extension.startswith(("lr.", "lr_blur")):
                    images.append((key, member.name, member.offset_data, member.size))
                else:
                    yield prefix + member.name
        except (tarfile.ReadError, ValueError) as error:
            yield SourceItem(f"{prefix}(rest)", path, "damaged", problem=f"the tar is damaged from here on: {error}")
        else:
            if _read_at(file, archive.offset, tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):  # tarfile stops silently
                yield SourceItem(f"{prefix}(rest)", path, "damaged", problem="the tar has no end mark: it is truncated")
    for key, name, offset, size in images:
        synset = synset_in((prefix + name).replace(".tar/", "/"))
        label = labels.get(key, CLASS_INDEX.get(synset or ""))
        yield SourceItem(prefix + name, path, "range", base + offset, size, label=label, synset=synset)


def _split_name(name: str) -> tuple[str, str]:
    """Split a member's name into (key, extension) as WebDataset does: at the first dot after the last slash."""
    folder, slash, file = name.rpartition("/")
    stem, _, extension = file.partition(".")
    return folder + slash + stem, extension.lower()


def _list_parquet(file: IO[bytes], path: str) -> Iterator[SourceItem]:
    """List Hugging Face's image layout: a struct of bytes and path, or plain bytes, and perhaps an integer label."""
    import pyarrow.parquet as parquet

    table = parquet.ParquetFile(file)
    image = _image_column(table)
    label = next((n for n in _LABEL_COLUMNS if n in table.schema_arrow.names), None)
    nested = f"{image}.path" if _is_struct(table, image) else None
    for group in range(table.num_row_groups):
        columns = [name for name in (nested, label) if name]
        rows = table.read_row_group(group, columns=columns).to_pylist() if columns else []
        for row in range(table.metadata.row_group(group).num_rows):
            values = rows[row] if rows else {}
            inner = (values.get(image) or {}).get("path") if nested else None
            found = values.get(label) if label else None
            name = f"{path}#{group:05d}-{row:06d}" + (f":{inner}" if inner else "")
            yield SourceItem(name, path, "row", group, row, label=found if isinstance(found, int) else None)


@lru_cache(maxsize=1)
def _row_group(path: str, group: int) -> Any:
    import pyarrow.parquet as parquet

    with open_seekable(path) as file:
        table = parquet.ParquetFile(file)
        image = _image_column(table)
        columns = [f"{image}.bytes"] if _is_struct(table, image) else [image]
        return table.read_row_group(group, columns=columns).column(image)


def _image_column(table: Any) -> str:
    names = table.schema_arrow.names
    structs = [name for name in names if _is_struct(table, name)]
    found = next((name for name in (*_IMAGE_COLUMNS, *structs) if name in names), None)
    if found is None:
        raise ValueError(f"no image column among {names}; name the column 'image'")
    return found


def _is_struct(table: Any, name: str) -> bool:
    kind = table.schema_arrow.field(name).type
    return kind.num_fields > 0 and any(kind.field(i).name == "bytes" for i in range(kind.num_fields))


def _read_at(file: IO[bytes], offset: int, size: int) -> bytes:
    file.seek(offset)
    return file.read(size)


def _slice(file: IO[bytes], start: int, size: int) -> RangeFile:
    """Open a part of a file as a separate file."""
    return RangeFile(lambda offset, wanted: _read_at(file, start + offset, wanted), size)
