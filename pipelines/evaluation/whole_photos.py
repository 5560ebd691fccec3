"""A run on whole photos: each is shrunk, upscaled in the tiles of `sr3 upscale`, and compared with itself."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from fractions import Fraction
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.evaluation.evaluate import NO_OPERATOR, write_evaluation
from pipelines.evaluation.image_sets import ImageSet, listed
from pipelines.evaluation.measurer import MeasuringSetup, read_pixels
from pipelines.evaluation.paired import PairedSets, measure_pairs
from pipelines.runs.run_folder import Run, local_path, open_run
from pipelines.runtime.provenance import provenance
from pipelines.sampling.held_out import Samples, end_to_end, save_png, upscale_images
from pipelines.sampling.held_out_images import WholePhotos, shrunk_size
from pipelines.settings.evaluate import EvaluateConfig, MeasureConfig
from sr3core.config import override, to_dict
from sr3core.errors import DataError

PATCH = 128
"""Side of the patches from whose features distances are computed, pixels; smaller photos give one of their own size."""
PATCHES_PER_PHOTO = 9
"""At most so many of a photo: more of them would let one large photo decide."""
_SMALLEST_INPUT = 8


def evaluate_photos(run: str, photos: str, out: str, config: EvaluateConfig, variant: MeasureConfig) -> dict[str, Any]:
    """Measure a run's methods on whole photos of any sizes. Needs a running Ray.

    Each photo is cut to sides that the scale divides, and shrunk by antialiased bicubic interpolation, or by the
    degradations that the run was trained with. PSNR, SSIM and consistency are those of whole photos; the distances are
    those of patches. The images stay in RUN/photos: the same command upscales only what is missing.

    Args:
        run: run folder.
        photos: folder of photos that the run was not trained on.
        out: JSON file to write.
        config: the schedule, seed, limit and number of actors; the split is not used.
        variant: the metrics' variants.

    Raises:
        ConfigError: the run's stages do not follow one another.
        DataError: there are no photos, or some cannot be read or are too small; names them.
    """
    opened = open_run(run)
    images = find_whole_photos(opened, photos, config.limit)
    folder = opened.path / "photos"
    originals = ImageSet.read(photos, "photos")
    identity = ["whole photos", images.keys, originals.hashes(images.keys), asdict(images.degradation)]
    samples = upscale_images(opened, override(config, num_seeds=1), images, folder / "upscaled", identity)
    sets = _paired(samples, images.degradation.order == 0)
    found = measure_pairs(
        replace(sets, patches=_patches(sets, folder / "patches")),
        MeasuringSetup(variant, opened.path / "measured", config.num_actors),
    )
    if sets.inputs is None:
        found["variants"].pop("consistency")
        found["warnings"].append(NO_OPERATOR)
    found["warnings"].append(
        f"distances are those of patches of at most {PATCH}x{PATCH} pixels; those of one photo resemble each other, so"
        " that the intervals of the distances are too narrow"
    )
    about = {
        "setting": f"whole photos of {photos}, upscaled in tiles",
        "samples": samples.fingerprint,
        "num_images": len(samples.keys),
        "keys": list(samples.keys),
        "schedules": samples.schedules,
        "seed": samples.seed,
    }
    result = write_evaluation(local_path(out), about | found, provenance(config) | {"measure": to_dict(variant)})
    opened.publish()
    return result


def find_whole_photos(run: Run, photos: str, limit: int | None) -> WholePhotos:
    """List the photos, and check that each can be read and is large enough.

    Raises:
        ConfigError, DataError: see evaluate_photos.
    """
    end_to_end(run)
    stages = [stage.config for stage in run.cascade()]
    scale = prod((stage.model.scale for stage in stages), start=Fraction(1))
    files = ImageSet.read(photos, "photos").files
    names = tuple(sorted(files)[:limit])
    small = [
        f"{name} ({height}x{width})"
        for name in names
        for height, width in [read_pixels(files[name]).shape[:2]]
        if min(shrunk_size(height, width, scale)) < _SMALLEST_INPUT
    ]
    if small:
        raise DataError(
            f"{photos}: too small to be shrunk {float(scale):g} times, which must leave {_SMALLEST_INPUT} pixels:"
            f" {listed(small)}; take them out"
        )
    return WholePhotos(names, tuple(files[name] for name in names), scale, stages[0].degradation)


def _paired(samples: Samples, has_operator: bool) -> PairedSets:
    def images(name: str) -> ImageSet:
        return ImageSet.of_samples(samples.folder, name, samples.keys)

    return PairedSets(
        names=samples.keys,
        methods=[images(name) for name in samples.methods],
        references=images("reference"),
        inputs=images("low") if has_operator else None,
    )


def _patches(sets: PairedSets, folder: Path) -> PairedSets:
    """The photos' patches as files, so that they are measured as any images are."""
    names = [name for key in sets.names for name in _cut(sets.references, key, folder)]
    for method in sets.methods:
        for key in sets.names:
            list(_cut(method, key, folder))
    return PairedSets(
        names=names,
        methods=[ImageSet.of_samples(folder, method.name, names) for method in sets.methods],
        references=ImageSet.of_samples(folder, sets.references.name, names),
    )


def _cut(images: ImageSet, key: str, folder: Path) -> Iterator[str]:
    """Write a photo's patches, and give their names."""
    pixels = read_pixels(images.files[key])
    for top, left in patch_corners(*pixels.shape[:2]):
        name = f"{key}@{top},{left}"
        save_png(
            np.ascontiguousarray(pixels[top : top + PATCH, left : left + PATCH]), folder / images.name / f"{name}.png"
        )
        yield name


def patch_corners(height: int, width: int) -> Sequence[tuple[int, int]]:
    """(top, left) of a photo's patches: of those side by side about its centre, PATCHES_PER_PHOTO evenly spread."""
    counts = [max(1, side // PATCH) for side in (height, width)]
    starts = [max(0, side - count * PATCH) // 2 for side, count in zip((height, width), counts, strict=True)]
    every = [
        (starts[0] + row * PATCH, starts[1] + column * PATCH) for row in range(counts[0]) for column in range(counts[1])
    ]
    chosen = np.unique(np.linspace(0, len(every) - 1, min(len(every), PATCHES_PER_PHOTO)).round().astype(int))
    return [every[index] for index in chosen]
