"""Columns and labels of parquet files: chosen by the user where there is a choice, and never dropped silently."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.images.rejects import RejectReason
from pipelines.prepare.sources.listing import open_source, read_item
from pipelines.prepare.sources.parquet_files import Columns
from sr3core.errors import ConfigError, DataError
from tests.pipelines.prepare.source_files import picture, rejected


def table(path: Path, **columns: list) -> str:
    pq.write_table(pa.table(columns), path)
    return str(path)


def test_two_columns_of_images_ask_for_a_choice(tmp_path: Path) -> None:
    uri = table(tmp_path / "t.parquet", image=[picture(0)], depth=[{"bytes": picture(1), "path": "d.png"}])
    with pytest.raises(ConfigError, match=r"in several columns, image, depth: give `--image-column image`"):
        open_source(uri)
    for column, seed in (("image", 0), ("depth", 1)):
        source = open_source(uri, columns=Columns(image=column))
        assert read_item(uri, source.items[0], column) == picture(seed)
    with pytest.raises(ConfigError, match=r"has no column 'x'; it has image, depth"):
        open_source(uri, columns=Columns(image="x"))


def test_text_labels_are_numbered_by_their_names(tmp_path: Path) -> None:
    images = [picture(n) for n in range(3)]
    uri = table(tmp_path / "t.parquet", image=images, label=["dog", "cat", None], other=["7", "8.0", "9"])
    source = open_source(uri)
    assert [(item.label, item.synset) for item in source.items] == [(1, "dog"), (0, "cat"), (None, None)]
    assert [item.label for item in open_source(uri, columns=Columns(label="other")).items] == [7, 8, 9]
    assert [item.label for item in open_source(uri, columns=Columns(label="none")).items] == [None] * 3


def test_labels_that_name_no_class_are_refused(tmp_path: Path) -> None:
    uri = table(tmp_path / "t.parquet", image=[picture(0)], label=[[1, 2]])
    with pytest.raises(DataError, match=r"neither a whole number nor the name of a class.*--label-column none"):
        open_source(uri)


def test_a_damaged_row_group_is_rejected_by_name(tmp_path: Path) -> None:
    uri = table(tmp_path / "t.parquet", image=[picture(0), picture(1)])
    data = bytearray(Path(uri).read_bytes())
    data[4:24] = b"\xff" * 20
    Path(uri).write_bytes(data)
    source = open_source(uri)
    assert rejected(source, source.items[0].name).reason == RejectReason.CORRUPT
