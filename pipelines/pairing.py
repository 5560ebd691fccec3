"""Folders of images that belong together: paired by file name without ending."""

from collections.abc import Collection

from sr3core.errors import DataError


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
