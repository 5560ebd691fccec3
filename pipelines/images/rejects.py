"""Why an image is not in the shards, or was not upscaled: reason codes, and the rows that name each image."""

from dataclasses import dataclass
from enum import StrEnum

from sr3core.errors import DataError


class RejectReason(StrEnum):
    """Why an image is not in the shards, or was not upscaled."""

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
    """More pixels than allowed, which may be a decompression bomb, or more than fit into memory or the format."""
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
    UNWRITTEN = "unwritten"
    """Its upscaled image could not be written, or would replace a file that is not ours."""
    CRASHED = "crashed"
    """The process that upscaled it died, twice: most often because the memory did not suffice."""


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
