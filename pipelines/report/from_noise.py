"""A run that draws images from noise: what it drew, and how far that is from originals; its page begins with both."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from PIL import Image

from pipelines.report.gallery import MAX_GALLERY_BYTES, data_uri
from pipelines.report.pictures import note
from pipelines.report.verdict import sets_verdict
from pipelines.runs.run_folder import Run
from sr3core.sizes import sides_of

NUM_FIRST = 6
"""Images at the top of the page."""
NUM_DRAWN = 24
"""Images in all."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """What a run drew from noise."""

    side: int
    """Of the images, pixels."""
    images: list[dict[str, Any]]
    """The first ones in the order of their numbers: src, size and number."""
    evaluation: Mapping[str, Any] | None
    """Content of table-4.json, where they were measured."""

    @property
    def first(self) -> list[dict[str, Any]]:
        """Those for the top of the page."""
        return self.images[:NUM_FIRST]

    @property
    def verdict(self) -> list[str]:
        """How far they are from originals, in sentences."""
        return sets_verdict(self.evaluation) if self.evaluation else []


def drawn_images(run: Run, table_4: Mapping[str, Any] | None, notes: list[str]) -> Drawn | None:
    """The images that `sr3 evaluate --from-noise` drew; None for a run that draws none.

    Args:
        run: the run.
        table_4: content of its table-4.json, which names their folder.
        notes: receives a note where the folder is not there any more.
    """
    base = run.base()
    if base is None:
        return None
    side = max(max(sides_of(stage.config.model.high_size)) for stage in (base, *run.cascade()))
    if table_4 is None:
        return Drawn(side, [], None)
    folder = _folder(run, table_4)
    images = list(_embedded(folder)) if folder.is_dir() else []
    if not images:
        note(f"the drawn images are omitted: {folder} holds none", notes)
    return Drawn(side, images, table_4)


def _folder(run: Run, table_4: Mapping[str, Any]) -> Path:
    """Where the drawn images are: below the run, which may have been moved since."""
    (written,) = table_4["provenance"]["outputs"]
    return run.path / "generated" / Path(written).name


def _embedded(folder: Path) -> Any:
    """The first images, as far as the page stays quick to open; the very first is always among them."""
    total = 0
    for number, path in enumerate(islice(sorted(folder.glob("[0-9]*.png")), NUM_DRAWN), start=1):
        content = path.read_bytes()
        total += len(content)
        if number > 1 and total > MAX_GALLERY_BYTES:
            return
        with Image.open(path) as image:
            yield {"src": data_uri(content), "size": image.size, "number": number}
