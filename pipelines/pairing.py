"""Folders of images that belong together: paired by file name without ending."""

from collections.abc import Collection
from pathlib import PurePosixPath

import numpy as np

from pipelines.decode import decode_image
from pipelines.photos import find_photos
from pipelines.storage import read_bytes
from sr3core.errors import DataError


def images_by_name(folder: str) -> dict[str, str]:
    """The images of a folder or s3:// prefix: name without ending -> where it is.

    Raises:
        DataError: there is none, or two have one name.
    """
    found: dict[str, str] = {}
    for photo in find_photos([folder]):
        if (name := PurePosixPath(photo.name).stem) in found:
            raise DataError(f"{folder} holds two images named {name}; files are paired by name without ending")
        found[name] = photo.uri
    return found


def read_image(uri: str) -> np.ndarray:
    """Decode an image to uint8 (H, W, 3).

    Raises:
        DataError: it is none; names it.
    """
    try:
        return decode_image(read_bytes(uri)).pixels
    except DataError as error:
        raise DataError(f"{uri}: {error}") from error


def check_pairs(role: str, found: Collection[str], names: Collection[str]) -> None:
    """Check that a folder has exactly the references' images.

    Args:
        role: what the folder is, for the message.
        found: its names without ending.
        names: the references'.

    Raises:
        DataError: names some that lack a partner.
    """
    missing, extra = sorted(set(names) - set(found)), sorted(set(found) - set(names))
    if missing or extra:
        lines = [f"{len(missing)} references have no {role}: {', '.join(missing[:5])}"] if missing else []
        lines += [f"{len(extra)} {role} have no reference: {', '.join(extra[:5])}"] if extra else []
        raise DataError("; ".join(lines) + ". Files are paired by name without ending")
