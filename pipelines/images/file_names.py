"""Which files are treated as images, by their names; the format is determined by the bytes."""

import posixpath

IMAGE_EXTENSIONS = frozenset(
    f".{extension}"
    for extension in (
        *("jpg", "jpeg", "jpe", "jfif", "png", "apng", "webp", "bmp", "dib", "tif", "tiff", "gif", "avif"),
        *("heic", "heif", "jp2", "ppm", "pgm", "pnm"),
    )
)
"""Extensions, lower case, of files that are treated as images."""

MAX_FILE_BYTES = 2**30
"""Largest file that is read as an image, bytes."""


def is_image_name(name: str) -> bool:
    """Whether a name's extension is an image's."""
    return posixpath.splitext(name)[1].lower() in IMAGE_EXTENSIONS
