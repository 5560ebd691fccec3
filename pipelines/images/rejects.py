"""Rejected images: reason codes, and the row that names an image and its reason."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from sr3core.errors import ConfigError, DataError


class RejectReason(StrEnum):
    """Reason code: why an image is not in the shards, or was not upscaled."""

    EMPTY = "empty"
    """The file is empty."""
    NOT_AN_IMAGE = "not_an_image"
    """Not of a known image format, whatever its name."""
    UNSUPPORTED = "unsupported"
    """An image whose pixels have no defined meaning as RGB, such as 32-bit floats."""
    TRUNCATED = "truncated"
    """The file ends too early."""
    CORRUPT = "corrupt"
    """Damaged, according to a checksum or the decoder."""
    TOO_LARGE = "too_large"
    """More pixels than allowed (perhaps a decompression bomb), or than fit into memory or the output format."""
    ANIMATED = "animated"
    """Several frames or pages."""
    TOO_SMALL = "too_small"
    """Its shorter side is below the stage's high size; section 4 discards such images."""
    FLAT = "flat"
    """Every crop that was tried is flat, and --max-flat allows none."""
    RATIO = "ratio"
    """The sizes of a given pair are not in the stage's ratio."""
    SHIFTED = "shifted"
    """A given pair is not aligned, or does not show the same."""
    DUPLICATE = "duplicate"
    """The same bytes exist under another name, or the name occurs twice."""
    NO_FACE = "no_face"
    """No face was found to align by."""
    UNREADABLE = "unreadable"
    """The source lists it but it could not be read."""
    UNWRITTEN = "unwritten"
    """Its upscaled image could not be written, or would replace a file that sr3 did not write."""
    CRASHED = "crashed"
    """Decoding or upscaling it ended the process, for lack of memory or by a fault of the decoder, or took too long."""


RETRIABLE = tuple(reason for reason in RejectReason if reason not in (RejectReason.DUPLICATE, RejectReason.UNWRITTEN))
"""Reasons for which a prepared image may be tried again: a later decoder, or another file, may have another answer."""


def check_retriable(reasons: Iterable[str]) -> None:
    """Check the reasons of `sr3 prepare --retry-rejects`.

    Raises:
        ConfigError: one of them is unknown, or its images cannot be tried again.
    """
    for reason in reasons:
        if reason == RejectReason.DUPLICATE:
            raise ConfigError("retry_rejects: duplicate: every `sr3 prepare` finds the duplicates anew; leave it out")
        if reason not in RETRIABLE:
            raise ConfigError(f"retry_rejects: {reason!r} is not one of the reasons {', '.join(RETRIABLE)}")


class DecodeError(DataError):
    """Bytes that are not a usable image, and why."""

    def __init__(self, reason: RejectReason, detail: str) -> None:
        super().__init__(f"{reason.value}: {detail}")
        self.reason = reason
        self.detail = detail

    def __reduce__(self) -> tuple[type["DecodeError"], tuple[RejectReason, str]]:
        return DecodeError, (self.reason, self.detail)


@dataclass(frozen=True, slots=True)
class Reject:
    """An image that was rejected."""

    path: str
    """Its name relative to the source."""
    reason: RejectReason
    """Reason code."""
    detail: str
    """What exactly is wrong, in words."""
