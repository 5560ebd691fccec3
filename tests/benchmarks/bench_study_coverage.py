"""How often an interval of 95% holds the true fool rate, and how often a test of equal models says otherwise.

    python tests/benchmarks/bench_study_coverage.py [--studies 1000] [--replicates 1000]

Studies are simulated as section 4.2.2 ran them (50 subjects, each shown 50 of 100 images): on the logit scale people
differ by a normal of 0.6, images by one of 1.0, and in the last row nobody and nothing differs.
"""

import argparse

import numpy as np

from sr3core.metrics.fool_rate import Answers, compare_models, wilson_interval

SHAPES = {"paper: 50 people, 50 of 100 images": (50, 100, 50), "small: 15 people, 20 of 30 images": (15, 30, 20)}
SPREADS = {
    "people and images differ": (0.6, 1.0),
    "people differ": (0.8, 0.0),
    "images differ": (0.0, 1.2),
    "none": (0.0, 0.0),
}
LEVEL = -0.2


def true_rate(people: float, images: float) -> float:
    """Mean of the logistic function over both populations."""
    points, weights = np.polynomial.hermite_e.hermegauss(101)
    return float((weights / (1 + np.exp(-LEVEL - np.hypot(people, images) * points))).sum() / weights.sum())


def simulate(
    generator: np.random.Generator, name: str, shape: tuple[int, int, int], people: float, image_levels: np.ndarray
) -> Answers:
    """One model's answers; its images are as hard as image_levels say."""
    num_subjects, num_images, num_shown = shape
    levels = generator.normal(0, people, num_subjects)
    shown = np.stack([generator.permutation(num_images)[:num_shown] for _ in levels])
    chance = 1 / (1 + np.exp(-LEVEL - levels[:, None] - image_levels[shown]))
    fooled = generator.random(shown.shape) < chance
    subjects = np.repeat([f"{name}{number}" for number in range(num_subjects)], num_shown)
    return Answers(subjects.tolist(), [f"i{image}" for image in shown.flat], fooled.ravel().tolist())


def main() -> None:
    """Simulate, count, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=1000)
    parser.add_argument("--replicates", type=int, default=1000)
    options = parser.parse_args()
    print(f"{'':62}{'two-way':>9}{'Wilson':>9}{'widths, points':>18}{'p < 0.05':>10}")
    for shape_name, shape in SHAPES.items():
        for spread_name, (people, images) in SPREADS.items():
            generator, truth = np.random.default_rng(0), true_rate(people, images)
            two_way, wilson, rejected, widths = 0, 0, 0, []
            for number in range(options.studies):
                levels = generator.normal(0, images, shape[1])  # equal models: the same images are hard for both
                models = {name: simulate(generator, name, shape, people, levels) for name in ("a", "b")}
                rates, (pair,) = compare_models(models, number, options.replicates)
                low, high = wilson_interval(sum(models["a"].fooled), len(models["a"].fooled))
                two_way += rates["a"].low <= truth <= rates["a"].high
                wilson += low <= truth <= high
                rejected += pair.p_value < 0.05
                widths.append((rates["a"].high - rates["a"].low, high - low))
            ours, theirs = 100 * np.mean(widths, axis=0)
            counts = [f"{count / options.studies:.1%}" for count in (two_way, wilson, rejected)]
            spread = f"{ours:.1f} against {theirs:.1f}"
            print(
                f"{shape_name + ', ' + spread_name:62}{counts[0]:>9}{counts[1]:>9}{spread:>18}{counts[2]:>10}",
                flush=True,
            )


if __name__ == "__main__":
    main()
