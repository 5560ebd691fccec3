"""Why an image is not in the shards: reason codes, and the rows that name each image."""

from dataclasses import dataclass
from enum import StrEnum

from sr3core.errors import DataError


class RejectReason(StrEnum):
    """Why an image is not in the shards."""

    EMPTY = "empty"
    """No bytes."""
    NOT_AN_IMAGE = "not_an_image"
    """Not of a format that is known, whatever its name says."""
    UNSUPPORTED = "unsupported"
    """An image whose pixels have no defined meaning as RGB, such as 32-bit floats."""
    TRUNCATED = "truncated"
    """Ends too early."""
    CORRUPT = "corrupt"
    """Damaged: a checksum or the decoder says so."""
    TOO_LARGE = "too_large"
    """More pixels than MAX_PIXELS: a decompression bomb."""
    ANIMATED = "animated"
    """Several frames or pages."""
    TOO_SMALL = "too_small"
    """Its shorter side is below the stage's high size (section 4: discarded)."""
    DUPLICATE = "duplicate"
    """The same bytes are there under another name, or the same name again."""
    NO_FACE = "no_face"
    """No face to align by, where that was asked for."""
    UNREADABLE = "unreadable"
    """The source listed it and could not read it."""


class DecodeError(DataError):
    """Bytes that are no usable image, and why."""

    def __init__(self, reason: RejectReason, detail: str) -> None:
        super().__init__(f"{reason.value}: {detail}")
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Reject:
    """One image that a stage does not hold."""

    path: str
    """Its name relative to the source."""
    reason: RejectReason
    """Reason code."""
    detail: str
    """What exactly, for a person."""
