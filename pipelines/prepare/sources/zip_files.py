"""Zip files: their directory is listed once, then every image is read on its own by its place in the file."""

import json
import struct
import zipfile
import zlib
from typing import IO, Any

from pipelines.images.file_names import MAX_FILE_BYTES
from pipelines.images.rejects import DecodeError, RejectReason
from pipelines.prepare.sources.class_labels import read_label
from pipelines.prepare.sources.items import How, Listing, SourceItem, judged
from pipelines.storage.uris import read_range

_LOCAL_HEADER = struct.Struct("<4s5H3I2H")
_ENCRYPTED = 1
_HOW: dict[int, How] = {zipfile.ZIP_STORED: "stored", zipfile.ZIP_DEFLATED: "deflated"}
_LABELS = "dataset.json"


def list_zip(file: IO[bytes], path: str, with_labels: bool = True) -> Listing:
    """List a StyleGAN dataset, whose dataset.json holds labels, or any other zip of images.

    Raises:
        zipfile.BadZipFile, ValueError, struct.error, EOFError, NotImplementedError: it is damaged, or no zip.
    """
    with zipfile.ZipFile(file) as archive:
        labels = _labels(archive) if with_labels else {}
        for member in archive.infolist():
            if not member.is_dir():
                yield judged(_item(member, path, labels.get(member.filename)))


def _item(member: zipfile.ZipInfo, path: str, stated: object) -> SourceItem:
    name = f"{path}/{member.filename}" if path else member.filename
    how = _HOW.get(member.compress_type, "damaged")
    problem = "" if how != "damaged" else f"compressed by method {member.compress_type}; zip it again"
    if member.flag_bits & _ENCRYPTED:
        how, problem = "damaged", "encrypted"
    label, class_name = read_label(stated, name)
    return SourceItem(
        name, path, how, member.header_offset, member.compress_size, member.CRC, label, class_name, problem
    )


def _labels(archive: zipfile.ZipFile) -> dict[str, Any]:
    """Name -> label by StyleGAN's dataset.json; nothing if another program wrote a file of that name."""
    try:
        rows = json.loads(archive.read(_LABELS))["labels"]
        return {name: label for name, label in rows if isinstance(label, int | str)}
    except (KeyError, ValueError, TypeError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error):
        return {}


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
