"""The cost of FID: its linear algebra against scipy's matrix square root, and feature extraction on two workers.

    python tests/benchmarks/bench_fid.py [--images DIR]

Both are ratios from one run of this script, on a machine with nothing else to do. The linear algebra is that of two
sets of 5,000 features of 2048 dimensions, from their moments to the distance, with as many threads both ways, and must
give the same number. The extraction is `sr3 evaluate`'s own, with the network that it would take, of the same images,
after a round that is not measured has started Ray's processes; each round has a cache of its own. The workers' start
counts.

Found on two idle cores: the linear algebra 13.2 and 13.9 times as fast (0.8 s against 10.7 s; 6.9 times before Cholesky
took the place of the first eigendecomposition, where doubling was predicted); on two workers 512 faces 1.75 times as
fast as on one and 1,024 faces 1.83 times, as the workers' start of some 5 s counts less.
"""

import argparse
import json
import logging
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import ray
import scipy.linalg
from PIL import Image

from pipelines.evaluation import measurer
from pipelines.evaluation.image_sets import ImageSet
from pipelines.evaluation.measurer import Measured, Measurer
from pipelines.evaluation.networks import feature_network
from pipelines.settings.evaluate import MeasureConfig
from sr3core.features.extractors import FeatureNetwork
from sr3core.metrics.fid import Moments, frechet_distance


def feature_like(count: int, dim: int, seed: int) -> Moments:
    """Moments of features that decay as Inception's do: a few directions hold most of the variance."""
    generator = np.random.default_rng(seed)
    scales = np.arange(1, dim + 1) ** -0.75
    mixing = np.linalg.qr(np.random.default_rng(0).standard_normal((dim, dim)))[0]
    return Moments.from_features(generator.standard_normal((count, dim)) * scales @ mixing + 0.01 * seed)


def by_sqrtm(a: Moments, b: Moments) -> float:
    """The reference implementation's way."""
    root = np.real(scipy.linalg.sqrtm(a.covariance @ b.covariance))
    difference = a.mean - b.mean
    return float(difference @ difference + np.trace(a.covariance) + np.trace(b.covariance) - 2 * np.trace(root))


def time_linear_algebra(count: int, dim: int, rounds: int) -> dict[str, float]:
    """Median seconds of both ways, by turns."""
    a, b = feature_like(count, dim, 1), feature_like(count, dim, 2)
    seconds: dict[str, list[float]] = {"ours": [], "scipy": []}
    values = {}
    for _ in range(rounds):
        for name, compute in (("ours", frechet_distance), ("scipy", by_sqrtm)):
            started = time.perf_counter()
            values[name] = compute(a, b)
            seconds[name].append(time.perf_counter() - started)
    np.testing.assert_allclose(values["ours"], values["scipy"], rtol=1e-5)
    return {name: float(np.median(times)) for name, times in seconds.items()} | {"distance": values["ours"]}


def extract(images: ImageSet, network: FeatureNetwork, num_actors: int, folder: str) -> tuple[float, Measured]:
    """Seconds of extracting a set's features into a fresh cache below a folder, and the features."""
    cache = Path(tempfile.mkdtemp(dir=folder))
    measurer = Measurer(cache, MeasureConfig(), [network])
    found = measurer.features(images, sorted(images.files), network)
    started = time.perf_counter()
    measurer.run(num_actors)
    return time.perf_counter() - started, found


def draw(folder: Path, count: int, size: int) -> None:
    """Noise images: what they show does not change the cost."""
    for index in range(count):
        pixels = np.random.default_rng(index).integers(0, 256, (size, size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index:05d}.png")


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", help="folder of real images; noise without it")
    parser.add_argument("--num-images", type=int, default=1024)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--features", type=int, default=5000)
    parser.add_argument("--dim", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    logging.disable(logging.INFO)
    found = time_linear_algebra(options.features, options.dim, options.rounds)
    print(json.dumps({"linear algebra, seconds": found, "times as fast": found["scipy"] / found["ours"]}), flush=True)

    os.environ.update(RAY_AUTH_MODE="disabled", RAY_USAGE_STATS_ENABLED="0")
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        if options.images is None:
            draw(Path(folder), options.num_images, options.size)
        every = ImageSet.read(options.images or folder, "images")
        names = sorted(every.files)[: options.num_images]
        images = ImageSet(every.name, every.folder, {name: every.files[name] for name in names})
        measurer.PART_IMAGES = max(1, len(names) // 16)  # eight parts a worker, so that none waits long for the other
        network = feature_network()
        few = ImageSet(images.name, images.folder, {name: images.files[name] for name in names[:2]})
        extract(few, network, 2, folder)
        seconds: dict[int, list[float]] = {1: [], 2: []}
        moments = {}
        for _ in range(options.rounds):
            for num_actors, times in seconds.items():
                took, measured = extract(images, network, num_actors, folder)
                times.append(took)
                moments[num_actors] = measured.moments()
    np.testing.assert_allclose(moments[2].mean, moments[1].mean, rtol=1e-9)
    medians = {str(actors): float(np.median(times)) for actors, times in seconds.items()}
    print(json.dumps({"network": network.name, "images": len(names), "extraction, seconds": medians}), flush=True)
    print(json.dumps({"two workers, times one": medians["1"] / medians["2"]}))


if __name__ == "__main__":
    main()
