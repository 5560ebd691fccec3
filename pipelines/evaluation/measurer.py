"""Measuring sets of images on Ray actors: features and pixelwise metrics, part by part, cached by content.

A part has a fixed number of images for any number of workers, and its file is named by a hash of what it depends on:
the images' bytes, the network, the variant. So any number of workers gives the same numbers, an interrupted evaluation
measures nothing twice, and a reference set is embedded once for all methods.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.evaluation.image_sets import ImageSet, listed, read_image
from pipelines.images.decoding import decode_image
from pipelines.runtime.actor_pool import run_on_actors
from pipelines.runtime.allocator import keep_freed_memory
from pipelines.runtime.progress_display import Counted, print_progress
from pipelines.settings.evaluate import MeasureConfig
from pipelines.storage.local_files import replacing
from sr3core.config import fingerprint_of
from sr3core.errors import DataError
from sr3core.features.extractors import FeatureNetwork
from sr3core.metrics.fid import Moments
from sr3core.metrics.lpips import Lpips, load_lpips

PART_IMAGES = 64
BATCH_IMAGES = 16
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class MeasuringSetup:
    """How sets of images are measured."""

    config: MeasureConfig
    """The metrics' variants."""
    cache: Path
    """Folder of measurements, keyed by content."""
    num_actors: int | None = None
    """Processes that measure in parallel; None takes one per GPU, or one. The numbers do not depend on it."""


@dataclass(frozen=True, slots=True)
class Part:
    """Some images of a set, in order, and the file for their measurements."""

    target: Path
    files: tuple[str, ...]
    network: str | None
    """Name of the feature network; None for the pixelwise metrics."""
    references: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Measured:
    """One set's parts; readable once they have been measured."""

    parts: tuple[Path, ...]

    def values(self) -> dict[str, np.ndarray]:
        """Metric -> float64 (n,), from the parts of a set's pixelwise metrics."""
        contents = [_load(part) for part in self.parts]
        return {name: np.concatenate([content[name] for content in contents]) for name in contents[0]}

    def features(self, rows: np.ndarray | None = None) -> np.ndarray:
        """float32 (n, D); if rows are named, in ascending order, of these alone: no others are kept in memory."""
        if rows is None:
            return np.concatenate(list(self._features()))
        kept, start = [], 0
        for part in self._features():
            first, last = np.searchsorted(rows, [start, start + len(part)])
            kept.append(part[rows[first:last] - start])
            start += len(part)
        return np.concatenate(kept)

    def moments(self) -> Moments:
        """The set's moments, merged from its parts: exact, without all features in memory."""
        return reduce(Moments.merge, map(Moments.from_features, self._features()))

    def _features(self) -> Iterator[np.ndarray]:
        return (_load(part)["features"] for part in self.parts)


class PartMeasurer:
    """An actor that measures one part after another."""

    def __init__(
        self, networks: Mapping[str, Any], lpips: Lpips | None, config: MeasureConfig, num_gpus: float
    ) -> None:
        import ray
        import torch

        from sr3core.networks.precision import set_gpu_arithmetic

        keep_freed_memory()
        torch.set_num_threads(1)  # sums in another order would differ from those of another number of workers
        set_gpu_arithmetic("float32")
        device = "cuda" if num_gpus > 0 and torch.cuda.is_available() else "cpu"
        self._networks: dict[str, FeatureNetwork] = {name: ray.get(ref) for name, ref in networks.items()}
        for network in self._networks.values():
            network.to(device)
        self._lpips = lpips.to(device) if lpips is not None else None  # Ray has resolved the reference
        self._config = config

    def work(self, part: Part) -> str:
        """Measure a part and write its file atomically; returns what is wrong with its images, or ""."""
        try:
            if part.network is None:
                content = self._pixelwise(part)
            else:
                content = {"features": self._features(part.files, self._networks[part.network])}
        except DataError as error:
            return str(error)
        _save(part.target, content)
        return ""

    def _features(self, files: Sequence[str], network: FeatureNetwork) -> np.ndarray:
        return np.concatenate(
            [
                features_of(network, [read_pixels(file) for file in files[start : start + BATCH_IMAGES]])
                for start in range(0, len(files), BATCH_IMAGES)
            ]
        )

    def _pixelwise(self, part: Part) -> dict[str, np.ndarray]:
        from sr3core.metrics.consistency import consistency
        from sr3core.metrics.psnr import psnr
        from sr3core.metrics.ssim import ssim

        variant = {"y_channel": self._config.y_channel, "crop_border": self._config.crop_border}
        found: dict[str, list[float]] = {}
        for index, file in enumerate(part.files):
            image, reference = read_pixels(file), read_pixels(part.references[index])
            if image.shape != reference.shape:
                raise DataError(f"{file} is {_size(image)}, but {part.references[index]} {_size(reference)}")
            values = {
                "psnr": psnr(image[None], reference[None], **variant)[0],
                "ssim": ssim(image[None], reference[None], **variant)[0],
            }
            if self._lpips is not None:
                values["lpips"] = self._lpips(image[None], reference[None])[0]
            if part.inputs:
                low = read_pixels(part.inputs[index])
                if low.shape[0] >= image.shape[0] or low.shape[1] >= image.shape[1]:
                    raise DataError(f"{part.inputs[index]} is {_size(low)}, not smaller than {file}, {_size(image)}")
                values["consistency"] = consistency(image[None], low[None])[0]
            for name, value in values.items():
                found.setdefault(name, []).append(float(value))
        return {name: np.array(values) for name, values in found.items()}


def features_of(network: FeatureNetwork, pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Features float32 (n, D) in the pictures' order; those of one size go through the network together."""
    rows = np.empty((len(pictures), network.dim), np.float32)
    for size in {picture.shape for picture in pictures}:
        chosen = [index for index, picture in enumerate(pictures) if picture.shape == size]
        rows[chosen] = network(np.stack([pictures[index] for index in chosen])).cpu().numpy()
    return rows


class Measurer:
    """Collects requests, then measures them all in one pass. Needs a running Ray."""

    def __init__(self, cache: Path, config: MeasureConfig, networks: Sequence[FeatureNetwork]) -> None:
        self._cache, self._config = cache, config
        self._networks = {network.name: network for network in networks}
        self._lpips = load_lpips(config.lpips) if config.lpips is not None else None
        self._hashes: dict[str, list[str]] = {}
        self._parts: dict[Path, Part] = {}

    def features(self, images: ImageSet, names: Sequence[str], network: FeatureNetwork) -> Measured:
        """Request a set's features."""
        hashes = self._hashes_of(images, names)
        parts = []
        for chosen in _slices(len(names)):
            target = self._cache / network.name / f"{fingerprint_of(hashes[chosen])}.npz"
            parts.append(Part(target, _files(images, names[chosen]), network.name))
        return self._ask(parts)

    def pixelwise(
        self, images: ImageSet, references: ImageSet, inputs: ImageSet | None, names: Sequence[str]
    ) -> Measured:
        """Request PSNR and SSIM of a set against its references, and consistency with its inputs."""
        sets = [images, references, *([inputs] if inputs else [])]
        hashes = [self._hashes_of(each, names) for each in sets]
        variant = [self._config.y_channel, self._config.crop_border, *([self._lpips.name] if self._lpips else [])]
        parts = []
        for chosen in _slices(len(names)):
            identity = fingerprint_of([[column[chosen] for column in hashes], variant])
            files = [_files(each, names[chosen]) for each in sets]
            parts.append(Part(self._cache / "pixelwise" / f"{identity}.npz", files[0], None, *files[1:]))
        return self._ask(parts)

    def run(self, wanted: int | None = None) -> None:
        """Measure the requested parts that are not cached, and show the progress.

        Raises:
            DataError: an image cannot be read, or sizes differ; names the files.
        """
        import ray

        todo = [part for part in self._parts.values() if not part.target.is_file()]
        total = sum(len(part.files) for part in todo)
        if len(todo) < len(self._parts):
            log.info("evaluate: %d of %d parts are cached", len(self._parts) - len(todo), len(self._parts))
        if not todo:
            return
        resources = ray.cluster_resources()
        num_actors = wanted or max(1, int(resources.get("GPU", 0.0)))
        cpus, gpus = (min(1.0, resources.get(kind, 0) / num_actors) for kind in ("CPU", "GPU"))
        used = {part.network for part in todo}
        networks = {name: ray.put(network) for name, network in self._networks.items() if name in used}
        lpips = ray.put(self._lpips) if self._lpips is not None else None
        measurer = ray.remote(PartMeasurer).options(num_cpus=cpus, num_gpus=gpus)

        def make_actor() -> Any:
            return measurer.remote(networks, lpips, self._config, gpus)

        progress, show, errors = Counted("evaluate", total, "measurements"), print_progress(), []
        show(progress)
        for part, found in run_on_actors(make_actor, todo, num_actors):
            progress.done += len(part.files)
            if found:  # what is wrong with an image, or why the process died twice
                errors.append(found if isinstance(found, str) else f"measuring {part.files[0]} and others: {found}")
            show(progress)
        if errors:
            raise DataError(listed(list(dict.fromkeys(errors))))  # features and pixelwise metrics read the same files

    def _ask(self, parts: list[Part]) -> Measured:
        self._parts.update({part.target: part for part in parts})
        return Measured(tuple(part.target for part in parts))

    def _hashes_of(self, images: ImageSet, names: Sequence[str]) -> list[str]:
        key = images.folder
        if key not in self._hashes:
            self._hashes[key] = images.hashes(names)
        return self._hashes[key]


def _slices(count: int) -> list[slice]:
    return [slice(start, start + PART_IMAGES) for start in range(0, count, PART_IMAGES)]


def _files(images: ImageSet, names: Sequence[str]) -> tuple[str, ...]:
    return tuple(images.files[name] for name in names)


def read_pixels(file: str) -> np.ndarray:
    """A file's pixels, uint8 (H, W, 3).

    Raises:
        DataError: it is not a usable image; names it.
    """
    try:
        return decode_image(read_image(file)).pixels
    except DataError as error:
        raise DataError(f"{file}: {error}") from error


def _save(target: Path, content: Mapping[str, np.ndarray]) -> None:
    with replacing(target) as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **content)


def _load(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as stored:
        return dict(stored)


def _size(image: np.ndarray) -> str:
    return f"{image.shape[1]}x{image.shape[0]}"
