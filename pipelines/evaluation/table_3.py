"""Table 3 for a run's 4x cascade on labelled photos: makes the images, then classifies and measures them."""

import shutil
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.evaluation.evaluate import Folders, evaluate_folders
from pipelines.evaluation.image_sets import ImageSet, read_labels
from pipelines.evaluation.measurer import read_pixels
from pipelines.ingest.split_reader import SplitImages
from pipelines.runs.run_folder import local_path, open_run
from pipelines.sampling.held_out import end_to_end, save_png, upscale_images
from pipelines.settings.evaluate import EvaluateConfig, MeasureConfig
from sr3core.config import override
from sr3core.errors import ConfigError
from sr3core.images.pixels import to_float, to_uint8
from sr3core.images.resize import downsample_bicubic
from sr3core.metrics.classification import CHAIN, CROP_SIZE, MODEL_SIZE, RESIZED_SIDE, table_3_input, table_3_reference


@dataclass(frozen=True, slots=True)
class _Crops:
    """Photos as Table 3 crops them."""

    keys: tuple[str, ...]
    files: tuple[str, ...]

    def part(self, chosen: slice) -> "_Crops":
        """Some of the photos."""
        return _Crops(self.keys[chosen], self.files[chosen])

    def load(self, reader_of: object) -> SplitImages:
        """Read and crop them."""
        references = [table_3_reference(read_pixels(file)) for file in self.files]
        low = np.concatenate([table_3_input(reference[None]) for reference in references])
        return SplitImages(self.keys, low, np.stack(references))


def evaluate_table_3(
    run: str, photos: str, labels: str, out: str, config: EvaluateConfig, variant: MeasureConfig
) -> dict[str, Any]:
    """Classify a run's upscaled 56x56 crops of photos, beside its regression baseline's, bicubic, nearest and the
    crops themselves. Needs a running Ray.

    The images stay in OUT.images; running the same command again upscales only the missing ones.

    Args:
        run: run folder whose cascade goes from 64 to 256 pixels.
        photos: folder of labelled photos, of any size.
        labels: CSV of their classes, for `image_sets.read_labels`.
        out: JSON file to write.
        config: the schedule, seed, limit and number of actors; the split is not used.
        variant: the metrics' variants.

    Raises:
        ConfigError: the run's cascade has other sizes.
        DataError: photos or labels are missing or damaged.
    """
    opened = open_run(run)
    wanted, found = f"{MODEL_SIZE}-{RESIZED_SIDE}", end_to_end(opened)
    if found != wanted:
        raise ConfigError(f"Table 3 needs a cascade of {wanted} pixels; that of {run} is {found}")
    folder = local_path(out).with_name(f"{local_path(out).name}.images")
    originals = ImageSet.read(photos, "photos")
    names = sorted(originals.files)[: config.limit]
    read_labels(labels, names)  # checked before anything is made
    images = _Crops(tuple(names), tuple(originals.files[name] for name in names))
    identity = [names, originals.hashes(names)]
    made = upscale_images(opened, override(config, num_seeds=1), images, folder / "upscaled", identity)
    for method in made.methods:
        shutil.rmtree(folder / method, ignore_errors=True)  # left by an earlier command, perhaps for other photos
        for name, large in zip(names, made.read(method), strict=True):
            save_png(to_uint8(downsample_bicubic(to_float(large[None]), CROP_SIZE))[0], folder / method / f"{name}.png")
    outputs = [f"{method}={folder / method}" for method in made.methods]
    sets = Folders(outputs=outputs, references=str(folder / "upscaled" / "reference"), labels=labels)
    return evaluate_folders(sets, out, variant, config.num_actors, setting=f"Table 3: {CHAIN}")
