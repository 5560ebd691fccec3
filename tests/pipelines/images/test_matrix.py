"""Image files of every kind: shown as they were made and as two other decoders show them, or rejected by name."""

from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from pipelines.images.decoding import decode_image
from pipelines.images.rejects import DecodeError, RejectReason
from tests.pipelines.images.matrix import (
    jpeg_files,
    modern_files,
    named_files,
    oracles,
    plain_files,
    png_files,
    tiff_files,
)
from tests.pipelines.images.matrix.cell import Cell
from tests.skips import find_imagemagick

FAMILIES = [png_files, jpeg_files, tiff_files, modern_files, plain_files]
DAMAGE = (RejectReason.TRUNCATED, RejectReason.CORRUPT)

each_family = pytest.mark.parametrize("family", FAMILIES, ids=lambda module: module.__name__.rsplit(".")[-1])


@cache
def cells_of(family: ModuleType) -> list[Cell]:
    return list(family.cells())


@cache
def shown(data: bytes) -> np.ndarray | DecodeError:
    try:
        return decode_image(data).pixels
    except DecodeError as error:
        return error


def difference(ours: np.ndarray | DecodeError, theirs: np.ndarray | DecodeError | None, tolerance: int) -> str:
    """What is wrong, in words; empty if nothing is."""
    if isinstance(ours, DecodeError):
        return f"rejected: {ours}"
    if theirs is None or isinstance(theirs, DecodeError):
        return "the other decoder cannot read it"
    if ours.shape != theirs.shape:
        return f"{ours.shape}, not {theirs.shape}"
    most = int(np.abs(ours.astype(int) - theirs).max())
    return f"differs by {most}" if most > tolerance else ""


def compare(family: ModuleType, other: str, shown_there: dict[str, np.ndarray | None]) -> list[str]:
    """The cells in which another decoder, where its word counts, shows something else."""
    pairs = [
        (cell.name, difference(shown(cell.data), shown_there.get(cell.name), cell.tolerance))
        for cell in cells_of(family)
        if cell.reject is None and other in cell.others
    ]
    assert pairs, f"{other} was asked nothing"
    return [f"{name}: {words}" for name, words in pairs if words]


@each_family
def test_a_file_is_shown_as_it_was_made_or_rejected(family: ModuleType) -> None:
    wrong = []
    for cell in cells_of(family):
        ours = shown(cell.data)
        if cell.reject is not None:
            reason = ours.reason if isinstance(ours, DecodeError) else "taken"
            words = "" if reason == cell.reject else f"{reason}, not {cell.reject}"
        else:
            words = difference(ours, ours if cell.shown is None else cell.shown, cell.tolerance)
        wrong += [f"{cell.name}: {words}"] * bool(words)
        assert cell.reject is not None or cell.shown is not None or cell.others, f"{cell.name}: nobody knows"
    assert not wrong


@each_family
def test_a_file_is_shown_as_libvips_shows_it(family: ModuleType) -> None:
    asked = [cell for cell in cells_of(family) if "libvips" in cell.others and cell.reject is None]
    assert not compare(family, "libvips", {cell.name: oracles.libvips(cell.data) for cell in asked})


@pytest.mark.skipif(find_imagemagick() is None, reason="ImageMagick is not installed")
@each_family
def test_a_file_is_shown_as_imagemagick_shows_it(family: ModuleType, tmp_path: Path) -> None:
    asked = {c.name: c.data for c in cells_of(family) if "ImageMagick" in c.others and c.reject is None}
    assert not compare(family, "ImageMagick", dict(oracles.imagemagick(asked, tmp_path)))


@each_family
def test_damage_is_rejected_as_damage(family: ModuleType) -> None:
    wrong = []
    for damaged in family.damaged():
        ours = shown(damaged.data)
        if isinstance(ours, DecodeError):
            wrong += [f"{damaged.name}: {ours}"] * (ours.reason not in DAMAGE)
        elif words := difference(ours, shown(damaged.whole), 0):  # what is lost may have held no pixels
            wrong.append(f"{damaged.name}: taken, {words}")
    assert not wrong


@pytest.mark.parametrize(("data", "word"), [file[1:] for file in named_files.files()], ids=named_files.NAMES)
def test_what_is_not_decoded_is_named(data: bytes, word: str) -> None:
    error = shown(data)
    assert isinstance(error, DecodeError)
    assert error.reason == RejectReason.UNSUPPORTED
    assert word in error.detail
