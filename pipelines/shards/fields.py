"""The samples of a shard of fields: KEY.hr.npy, KEY.lr.npy, perhaps KEY.static.npy and KEY.mask.npy, and KEY.json.

Values are in physical units; hr is 0 where the mask, uint8, is 0.
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sr3core import strict_json
from sr3core.errors import DataError


@dataclass(frozen=True, slots=True)
class FieldRecord:
    """One sample."""

    key: str
    """Stable hash of the sample's name and values."""
    high: np.ndarray
    """Target, (C, H, W), in physical units."""
    low: np.ndarray
    """Low-resolution input, (C_in, h, w), in physical units."""
    static: np.ndarray | None
    """Static maps, float32 (K, H, W)."""
    valid: np.ndarray | None
    """Where the target is known, bool (C, H, W); None for everywhere."""
    meta: dict[str, Any]
    """Content of KEY.json: name, time and window."""


def encode_field(record: FieldRecord) -> dict[str, bytes]:
    """Encode a sample to its members, in the order in which they are written."""
    members = {"hr.npy": encode_npy(record.high), "lr.npy": encode_npy(record.low)}
    if record.static is not None:
        members["static.npy"] = encode_npy(record.static)
    if record.valid is not None:
        members["mask.npy"] = encode_npy(record.valid.astype(np.uint8))
    members["json"] = strict_json.dumps(record.meta, sort_keys=True).encode()
    return members


def read_field(key: str, members: Mapping[str, bytes]) -> FieldRecord:
    """Decode a sample.

    Args:
        key: key of the sample.
        members: bytes of its members, by name without the key.

    Raises:
        DataError: a member is missing or damaged.
    """
    try:
        found = {name: decode_npy(data) for name, data in members.items() if name.endswith(".npy")}
        meta = strict_json.loads(members["json"]) if "json" in members else {}
        mask = found.get("mask.npy")
        return FieldRecord(
            key,
            found["hr.npy"],
            found["lr.npy"],
            found.get("static.npy"),
            None if mask is None else mask.astype(bool),
            meta,
        )
    except KeyError as error:
        raise DataError(
            f"record {key}: it lacks {error}; it has {sorted(members)}: is this a shard of fields?"
        ) from error
    except ValueError as error:
        raise DataError(f"record {key} is damaged ({error}); run `sr3 verify` on its folder") from error


def encode_npy(array: np.ndarray) -> bytes:
    """Encode an array in numpy's format, version 1.0, little endian, in C order."""
    buffer = io.BytesIO()
    plain = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    np.lib.format.write_array(buffer, plain, version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


def decode_npy(data: bytes) -> np.ndarray:
    """Decode an array in numpy's format: a view of the bytes, which cannot be written to.

    Raises:
        ValueError: it is damaged, or holds Python's objects.
    """
    file = io.BytesIO(data)
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("it is not of version 1.0 of numpy's format")
    shape, in_columns, dtype = np.lib.format.read_array_header_1_0(file)
    if dtype.hasobject or in_columns:
        raise ValueError("it holds objects, or is in Fortran's order")
    return np.frombuffer(data, dtype, offset=file.tell()).reshape(shape)
