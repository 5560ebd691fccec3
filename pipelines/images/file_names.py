"""Which files are taken for images: by their names; what a file really is, its bytes decide."""

import posixpath

IMAGE_EXTENSIONS = frozenset(
    f".{extension}"
    for extension in (
        *("jpg", "jpeg", "jpe", "jfif", "png", "apng", "webp", "bmp", "dib", "tif", "tiff", "gif", "avif"),
        *("heic", "heif", "jp2", "ppm", "pgm", "pnm"),
    )
)
"""Names that are taken for images; what a file really is, its bytes decide."""

MAX_FILE_BYTES = 2**30
"""Largest file that is read as an image."""


def is_image_name(name: str) -> bool:
    """Whether a name's extension is an image's."""
    return posixpath.splitext(name)[1].lower() in IMAGE_EXTENSIONS
