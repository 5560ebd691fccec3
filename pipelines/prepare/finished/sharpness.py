"""How sharp the prepared images are: enlarged, blurred and blocky sources teach a model to draw just that."""

from collections.abc import Iterator, Sequence
from itertools import islice
from statistics import median

import numpy as np

from pipelines.runtime.threads import map_in_threads
from pipelines.settings.prepare import PrepareConfig
from pipelines.shards.manifest import Manifest, load_index
from pipelines.shards.records import read_record
from pipelines.storage.uris import join, read_range
from sr3core.images.sharpness import BLOCK, MAX_BLOCK_STEP, MIN_DETAIL, block_step, fine_detail
from sr3core.sizes import sides_of

NUM_JUDGED = 64
"""Images that are looked at: the first ones of training, whose order is that of a hash."""
_FEWEST = 8
"""With fewer images that have detail, nothing is said."""


def sharpness_remarks(config: PrepareConfig, manifest: Manifest) -> Iterator[str]:
    """A line on the detail of a stage's images, and one for each fault that most of them have."""
    images = list(islice(_images(config, manifest), NUM_JUDGED))
    details = [detail for image in images if (detail := fine_detail(image)) is not None]
    if len(details) < _FEWEST:
        return
    detail, step = median(details), median(map(block_step, images))
    name = manifest.stage.name
    yield f"{name}: fine detail {detail:+.1f} dB against photos of a megapixel, steps at JPEG blocks {step:.2f}"
    yield from _warnings(name, detail, step, min(sides_of(manifest.stage.high_size)))


def _warnings(name: str, detail: float, step: float, side: int) -> Sequence[str]:
    found = []
    if detail < MIN_DETAIL:
        found.append(
            f"warning: {name}: the images lack fine detail, as enlarged or blurred photos do, and a model learns to"
            " draw none; take the originals, or shrink them first (--crop square, or a smaller stage)"
        )
    # Enlarging twice looks like blocks, too; and of few pixels, the largest of several steps is larger by chance.
    elif step > MAX_BLOCK_STEP * (1 + BLOCK / side):
        found.append(
            f"warning: {name}: the images show the blocks of strong JPEG compression, and a model learns to draw them;"
            " take better copies, or shrink them to half (--crop square, or a smaller stage)"
        )
    return found


def _images(config: PrepareConfig, manifest: Manifest) -> Iterator[np.ndarray]:
    """The targets, read a few at a time."""
    folder = join(config.out, manifest.stage.name)
    places = (
        (entry.name, {name: place for name, place in members.items() if name.startswith("hr.")})
        for entry in manifest.splits["train"]
        for members in load_index(folder, entry.name).members
    )

    def read(place: tuple[str, dict[str, tuple[int, int]]]) -> np.ndarray:
        shard, members = place
        return read_record(shard, {name: read_range(join(folder, shard), *at) for name, at in members.items()}).high

    return map_in_threads(read, islice(places, NUM_JUDGED))
