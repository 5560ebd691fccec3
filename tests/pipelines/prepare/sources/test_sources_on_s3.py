"""Every kind of source on a real S3 server."""

import io
import tarfile
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.prepare.sources.listing import open_source, read_item
from pipelines.storage import uris
from sr3core.errors import DataError
from tests.s3_server import S3Server


@pytest.fixture(scope="module")
def query(s3_server: S3Server) -> str:
    """A bucket for sources; what to append to an s3:// URI to reach it."""
    s3_server.create_bucket("sources")
    return f"?endpoint_override={s3_server.endpoint}"


PICTURES = {f"{number}.png": b"\x89PNG\r\n\x1a\n" + bytes([number]) * 3000 for number in range(3)}


def archives() -> dict[str, bytes]:
    zipped, tarred, table = io.BytesIO(), io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in PICTURES.items():
            archive.writestr(name, data)
    with tarfile.open(fileobj=tarred, mode="w") as archive:
        for name, data in PICTURES.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    rows = [{"bytes": data, "path": name} for name, data in PICTURES.items()]
    pq.write_table(pa.table({"image": pa.array(rows, struct)}), table, row_group_size=2)
    return {"z.zip": zipped.getvalue(), "t.tar": tarred.getvalue(), "p.parquet": table.getvalue()}


def test_every_kind_of_source_on_s3(query: str) -> None:
    files = {f"kinds/{name.partition('.')[2]}/{name}": data for name, data in archives().items()}
    files |= {f"kinds/folder/deep er/ü/{name}": data for name, data in PICTURES.items()}
    for name, data in files.items():
        uris.write_atomic(f"s3://sources/{name}{query}", data)
    for kind in ("zip", "tar", "parquet", "folder"):
        source = open_source(f"s3://sources/kinds/{kind}{query}")
        assert source.layout == kind
        assert [read_item(source.uri, item) for item in source.items] == list(PICTURES.values())
    for name in files:
        source = open_source(f"s3://sources/{name}{query}") if not name.endswith(".png") else None
        assert source is None or len(source.items) == 3


def test_the_data_sets_own_layouts_on_s3(query: str) -> None:
    one = PICTURES["0.png"]
    inner, outer = io.BytesIO(), io.BytesIO()
    for buffer, name, data in ((inner, "n01443537_1.JPEG", one), (outer, "n01443537.tar", None)):
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            info = tarfile.TarInfo(name)
            content = inner.getvalue() if data is None else data
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    truth = {"val/ILSVRC2012_val_00000001.JPEG": one, "val/ILSVRC2012_validation_ground_truth.txt": b"490\n"}
    layouts: dict[str, tuple[dict[str, bytes], str, int | None]] = {
        "ffhq": ({"images1024x1024/00000/00000.png": one}, "ffhq", None),
        "celebahq": ({"CelebA-HQ-img/0.jpg": one}, "celebahq", None),
        "synsets": ({"train/n01443537/n01443537_1.JPEG": one}, "imagenet", 1),
        "validation": (truth, "imagenet", 65),
        "tar-of-tars": ({"ILSVRC2012_img_train.tar": outer.getvalue()}, "tar, imagenet", 1),
    }
    for folder, (files, layout, label) in layouts.items():
        for name, data in files.items():
            uris.write_atomic(f"s3://sources/own/{folder}/{name}{query}", data)
        below = "/val" if folder == "validation" else ""
        source = open_source(f"s3://sources/own/{folder}{below}{query}")
        assert (source.layout, [item.label for item in source.items]) == (layout, [label]), folder
        assert [read_item(source.uri, item) for item in source.items] == [one]
    uris.write_atomic(f"s3://sources/own/wild/in-the-wild-images/00000/00000.png{query}", one)
    with pytest.raises(DataError, match=r"in-the-wild images.*not aligned"):
        open_source(f"s3://sources/own/wild{query}")
