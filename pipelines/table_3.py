"""Table 3 for a run's 4x cascade on labelled photos: the chain of images, then classification beside the metrics."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.config import EvaluateConfig
from pipelines.evaluate import evaluate_folders
from pipelines.image_sets import ImageSet, listed, read_labels
from pipelines.measure import read_pixels
from pipelines.measure_config import MeasureConfig
from pipelines.runs import local_path, open_run
from pipelines.sample import end_to_end, save_png
from pipelines.sampling_config import UpscaleConfig
from pipelines.upscale import upscale_photos
from sr3core.errors import ConfigError, DataError
from sr3core.images import to_float, to_uint8
from sr3core.metrics.classification import CHAIN, CROP_SIZE, MODEL_SIZE, RESIZED_SIDE, table_3_input, table_3_reference
from sr3core.resize import downsample_bicubic, upsample_bicubic


def evaluate_table_3(
    run: str, photos: str, labels: str, out: str, config: EvaluateConfig, variant: MeasureConfig
) -> dict[str, Any]:
    """Classify what a run makes of photos' 56x56 crops, beside bicubic and the crops themselves. Needs a running Ray.

    The images stay in OUT.images; the same command again upscales only what is not there.

    Args:
        run: run folder whose cascade goes from 64 to 256 pixels.
        photos: folder of labelled photos, of any size.
        labels: CSV of their classes, for `image_sets.read_labels`.
        out: JSON file to write.
        config: the schedule, seed, limit and number of actors; the split is not looked at.
        variant: the metrics' variants.

    Raises:
        ConfigError: the run goes from other sizes.
        DataError: photos or labels are missing or damaged.
    """
    wanted, found = f"{MODEL_SIZE}-{RESIZED_SIDE}", end_to_end(open_run(run))
    if found != wanted:
        raise ConfigError(f"Table 3 needs a cascade of {wanted} pixels, {run} goes {found}")
    folder = local_path(out).with_name(f"{local_path(out).name}.images")
    originals = ImageSet.read(photos, "photos")
    names = sorted(originals.files)[: config.limit]
    read_labels(labels, names)  # told before anything is made
    for made in ("references", "low", "bicubic", "sr3"):  # an earlier command's, perhaps of other photos
        shutil.rmtree(folder / made, ignore_errors=True)
    for name in names:
        _write_inputs(originals.files[name], name, folder)
    inputs = [str(folder / "low" / f"{name}.png") for name in names]
    upscaling = UpscaleConfig(
        schedule=config.schedule, seed=config.seed, num_actors=config.num_actors, inference=config.inference
    )
    reports = upscale_photos(run, inputs, str(folder / "upscaled"), upscaling)
    if failed := [f"{report.source}: {report.detail}" for report in reports if report.reason]:
        raise DataError(listed(failed))
    for name in names:
        large = read_pixels(str(folder / "upscaled" / f"{name}.png"))
        _write_resized(large, folder / "sr3" / f"{name}.png")
    outputs = [f"{method}={folder / method}" for method in ("bicubic", "sr3")]
    return evaluate_folders(
        outputs,
        str(folder / "references"),
        out,
        labels=labels,
        config=variant,
        num_actors=config.num_actors,
        setting=f"Table 3: {CHAIN}",
    )


def _write_inputs(photo: str, name: str, folder: Path) -> None:
    """Write the chain's reference, the model's input, and bicubic's output."""
    reference = table_3_reference(read_pixels(photo))
    low = table_3_input(reference[None])
    save_png(reference, folder / "references" / f"{name}.png")
    save_png(low[0], folder / "low" / f"{name}.png")
    large = to_uint8(upsample_bicubic(to_float(low), RESIZED_SIDE))[0]
    _write_resized(large, folder / "bicubic" / f"{name}.png")


def _write_resized(large: np.ndarray, path: Path) -> None:
    save_png(to_uint8(downsample_bicubic(to_float(large[None]), CROP_SIZE))[0], path)
