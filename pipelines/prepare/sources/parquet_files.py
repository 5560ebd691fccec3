"""Parquet files: Hugging Face's image layout, and tables of plain bytes; images are read by row group and row."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from shlex import quote
from typing import IO, Any

from pipelines.images.rejects import DecodeError, RejectReason
from pipelines.prepare.sources.class_labels import NO_LABELS, read_label
from pipelines.prepare.sources.items import Listing, SourceItem
from pipelines.storage.uris import open_seekable
from sr3core.errors import ConfigError

_IMAGE_COLUMNS = ("image", "img", "jpg", "png", "webp")
_LABEL_COLUMNS = ("label", "cls", "class")


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns of parquet files are read."""

    image: str = ""
    """Column of the images; empty takes the only one that holds any."""
    label: str = ""
    """Column of the classes; empty takes label, cls or class; NO_LABELS reads none."""


def list_parquet(file: IO[bytes], path: str, columns: Columns) -> Listing:
    """List a table with an item for each row: a struct of bytes and path, or plain bytes, and perhaps a label.

    Raises:
        ConfigError: it has no such columns, or several of images.
        DataError: a label names no class.
        ValueError: the file is damaged, or no parquet.
    """
    import pyarrow as pa
    import pyarrow.parquet as parquet

    try:
        table = parquet.ParquetFile(file)
        image = _image_column(table.schema_arrow, path, columns.image)
        label = _label_column(table.schema_arrow.names, path, columns.label)
        nested = f"{image}.path" if _is_struct(table.schema_arrow.field(image).type, "path") else None
        for group in range(table.num_row_groups):
            wanted = [name for name in (nested, label) if name]
            rows = table.read_row_group(group, columns=wanted).to_pylist() if wanted else []
            for row in range(table.metadata.row_group(group).num_rows):
                values = rows[row] if rows else {}
                inner = (values.get(image) or {}).get("path") if nested else None
                name = f"{path}#{group:05d}-{row:06d}" + (f":{inner}" if inner else "")
                number, class_name = read_label(values.get(label) if label else None, name)
                yield SourceItem(name, path, "row", group, row, label=number, synset=class_name)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(str(error)) from error


def read_row(path: str, item: SourceItem, image_column: str = "") -> bytes:
    """Read the image in a parquet row; the row group stays in memory for the next row.

    Args:
        path: the parquet file.
        item: the row.
        image_column: as in Columns.

    Raises:
        DecodeError: the row holds no bytes, or its group is damaged.
    """
    import pyarrow as pa

    try:
        value = _row_group(path, item.offset, image_column)[item.size].as_py()
    except (pa.ArrowException, OSError, IndexError) as error:
        raise DecodeError(RejectReason.CORRUPT, f"the parquet row group cannot be read: {error}") from error
    data = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(data, bytes):
        raise DecodeError(RejectReason.UNREADABLE, "the parquet row holds no image bytes")
    return data


@lru_cache(maxsize=2)  # of two columns, for pairs
def _row_group(path: str, group: int, image_column: str) -> Any:
    import pyarrow.parquet as parquet

    with open_seekable(path) as file:
        table = parquet.ParquetFile(file)
        image = _image_column(table.schema_arrow, path, image_column)
        nested = _is_struct(table.schema_arrow.field(image).type, "bytes")
        return table.read_row_group(group, columns=[f"{image}.bytes" if nested else image]).column(image)


def _image_column(schema: Any, path: str, wanted: str) -> str:
    """The column of the images: the wanted one, or the only one that there is."""
    import pyarrow.types as types

    if wanted:
        return _existing(wanted, schema.names, path, "image")
    kinds = {name: schema.field(name).type for name in schema.names}
    structs = [name for name, kind in kinds.items() if _is_struct(kind, "bytes")]
    plain = [n for n in _IMAGE_COLUMNS if n in kinds and (types.is_binary(kinds[n]) or types.is_large_binary(kinds[n]))]
    found = [name for name in schema.names if name in (*structs, *plain)]
    if len(found) > 1:
        raise ConfigError(
            f"image_column: {path or 'the file'} holds images in several columns, {', '.join(found)}: give"
            f" `--image-column {quote(found[0])}` or another of them"
        )
    if not found:
        raise ConfigError(
            f"image_column: {path or 'the file'} holds no column that is known to be one of images, among"
            f" {', '.join(schema.names)}; name it by `--image-column`"
        )
    return found[0]


def _label_column(names: Sequence[str], path: str, wanted: str) -> str | None:
    if wanted == NO_LABELS:
        return None
    if wanted:
        return _existing(wanted, names, path, "label")
    return next((name for name in _LABEL_COLUMNS if name in names), None)


def _existing(name: str, names: Sequence[str], path: str, kind: str) -> str:
    if name not in names:
        raise ConfigError(f"{kind}_column: {path or 'the file'} has no column {name!r}; it has {', '.join(names)}")
    return name


def _is_struct(kind: Any, field: str) -> bool:
    return kind.num_fields > 0 and any(kind.field(i).name == field for i in range(kind.num_fields))
