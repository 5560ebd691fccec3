"""What the records of given pairs tell together: a shift that all of them share is a fault of what made them."""

from collections.abc import Iterator
from itertools import islice
from statistics import median

from pipelines.runtime.threads import map_in_threads
from pipelines.settings.prepare import PrepareConfig
from pipelines.shards.manifest import Manifest, load_index
from pipelines.storage.uris import join, read_range
from sr3core import strict_json

NUM_JUDGED = 200
"""Records whose shifts are compared: the first ones of training."""
_COMMON_SHIFT = 0.1


def pair_remarks(config: PrepareConfig, manifest: Manifest) -> Iterator[str]:
    """A line on the shift of a stage's low-resolution images, if it is more than chance."""
    places = islice(_places(config, manifest), NUM_JUDGED)
    metas = map_in_threads(lambda place: strict_json.loads(read_range(*place)), places)
    shifts = [shift for meta in metas if (shift := meta.get("shift"))]
    if not shifts:
        return
    down, right = (median(shift[axis] for shift in shifts) for axis in (0, 1))
    if max(abs(down), abs(right)) > _COMMON_SHIFT:
        yield (
            f"warning: {manifest.stage.name}: the low-resolution images are shifted by {down:.2f} pixels down and"
            f" {right:.2f} to the right (median of {len(shifts)}); a model learns to shift what it enlarges. Programs"
            " that take every nth pixel, or align corners, make such images"
        )


def _places(config: PrepareConfig, manifest: Manifest) -> Iterator[tuple[str, int, int]]:
    """Tar, offset and size of each record's JSON."""
    folder = join(config.out, manifest.stage.name)
    for entry in manifest.splits["train"]:
        for members in load_index(folder, entry.name).members:
            yield join(folder, entry.name), *members["json"]
