"""Finding the report's pictures: every method's outputs for the held-out images."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from pipelines.sampling.held_out import repeated

log = logging.getLogger(__name__)


def note(text: str, notes: list[str]) -> None:
    """Note on the page, and in the log, what is omitted."""
    log.warning("report: %s", text)
    notes.append(text)


def title_of(method: str, regressions: Sequence[str]) -> str:
    """A method's display name; its folder in RUN/samples is named after its stage.

    Args:
        method: the folder.
        regressions: names of the run's regression stages.
    """
    if method in regressions:
        return "Regression" if len(regressions) == 1 else f"Regression {method.removesuffix('-regression')}"
    return {"low": "Input", "sr3": "SR3", "reference": "Original"}.get(method, method.capitalize())


@dataclass(frozen=True, slots=True)
class Pictures:
    """The pictures in RUN/samples: FOLDER/METHOD/KEY.png."""

    folder: Path
    methods: dict[str, str] = field(default_factory=dict)
    """Folder -> title, in the order of the columns."""
    keys: list[str] = field(default_factory=list)
    """Images for which every method has an output, in the order of the evaluation."""
    repeats: tuple[str, ...] = ()
    """Folders of SR3's samples of some of the images with other noise."""

    def has(self, title: str) -> bool:
        """Whether the method has pictures."""
        return title in self.methods.values()

    def file(self, method: str, key: str) -> Path:
        """One picture's path."""
        return self.folder / method / f"{key}.png"

    def read(self, method: str, key: str) -> np.ndarray:
        """One picture's pixels, uint8 (H, W, 3).

        Raises:
            OSError: it is damaged.
        """
        with Image.open(self.file(method, key)) as image:
            return np.asarray(image.convert("RGB"))

    def size(self, method: str, key: str) -> tuple[int, int]:
        """One picture's (width, height), without decoding it."""
        with Image.open(self.file(method, key)) as image:
            return image.size

    def number(self, key: str) -> int:
        """An image's number on the page, from 1."""
        return self.keys.index(key) + 1


def find_pictures(folder: Path, methods: dict[str, str], keys: Sequence[str], notes: list[str]) -> Pictures:
    """Find the pictures of some images; images for which a method has no output are omitted, with a note.

    Args:
        folder: RUN/samples.
        methods: folder -> title, in the order of the columns; those without a folder are omitted.
        keys: the evaluated images, in order.
        notes: receives a note on what is omitted.
    """
    there = {name: title for name, title in methods.items() if (folder / name).is_dir()}
    complete = [key for key in keys if there and all((folder / name / f"{key}.png").is_file() for name in there)]
    if there and len(complete) < len(keys):
        note(f"{len(keys) - len(complete)} of {len(keys)} images lack a sample and are omitted", notes)
    num_repeats = len([path for path in folder.glob("sr3-*") if path.is_dir()])
    return Pictures(folder, there, complete, tuple(repeated(k) for k in range(1, num_repeats + 1)))
