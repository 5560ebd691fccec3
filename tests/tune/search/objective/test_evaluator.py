"""The objective: the same for every schedule, exact, stored on disk, with a correct standard error."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import torch

from sr3core.diffusion.schedules import default_schedule
from sr3core.features.extractors import FeatureNetwork, SeededFeatures, extract_features
from sr3core.metrics.fid import Moments, frechet_distance
from tune.search.objective.estimates import DivergedError, distance, objective_value, standard_errors, summarise
from tune.search.objective.evaluator import Evaluator
from tune.search.objective.measurements import Measurements, Task, measurement_path
from tune.search.settings import ObjectiveWeights


@pytest.fixture
def task(tiny_run: Any, images: Any) -> Task:
    """A task on 16 images in rungs of 4 and 16."""
    network = SeededFeatures()
    return Task(
        model=tiny_run.stage.config.model,
        mean=None,
        network=tiny_run.stage.weights.load(),
        feature_network=network,
        keys=images.keys,
        low=images.low,
        high=images.high,
        references=extract_features(network, images.high),
        identity="task",
        cache=Path(tiny_run.path) / "measured",
        purpose="search",
        seed=0,
        rungs=(4, 16),
        paired=True,
        estimates=("kid", "fid"),
        weights=ObjectiveWeights(),
        batch_size=5,
    )


def reference_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Fréchet distance by the textbook: a general matrix square root of the product."""
    root = scipy.linalg.sqrtm(np.cov(a, rowvar=False) @ np.cov(b, rowvar=False))
    traces = np.trace(np.cov(a, rowvar=False)) + np.trace(np.cov(b, rowvar=False))
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + traces - 2 * np.trace(root).real)


@pytest.mark.parametrize(("count", "dim"), [(400, 32), (3000, 64)])
def test_distance_agrees_with_an_independent_one(count: int, dim: int) -> None:
    generator = np.random.default_rng(0)
    a = generator.normal(size=(count, dim)) @ generator.normal(size=(dim, dim))
    b = generator.normal(0.3, 1, size=(count, dim)) @ generator.normal(size=(dim, dim))
    assert distance(a, b, True) == pytest.approx(reference_distance(a, b), rel=1e-6)


def test_moments_of_parts_give_the_distance_of_the_whole() -> None:
    """The result of merging the parts of actors that share the images."""
    generator = np.random.default_rng(0)
    a, b = generator.normal(size=(2, 500, 40))
    parts = [Moments.from_features(part) for part in (a[:7], a[7:300], a[300:])]
    merged = parts[2].merge(parts[0]).merge(parts[1])
    assert frechet_distance(merged, Moments.from_features(b)) == pytest.approx(distance(a, b, True), rel=1e-9)


def measured_with(features: np.ndarray, **values: np.ndarray) -> Measurements:
    """Measurements that are zero except for the given values."""
    zeros = np.zeros(len(features))
    others = {name: values.get(name, zeros) for name in ("psnr", "ssim", "consistency", "seconds")}
    return Measurements(features=features, **others)


@pytest.mark.parametrize(("count", "dim"), [(300, 8), (40, 128)], ids=["more-images", "fewer-images-than-features"])
def test_the_standard_errors_are_those_of_repeated_draws(task: Task, count: int, dim: int) -> None:
    """The jackknife of one draw of images against the scatter of the distances over many draws.

    A search judges by fewer images than Inception has features: the distance is then far too high, but as much so in
    every draw and every group, and its standard error holds.
    """
    generator = np.random.default_rng(0)
    mixing = generator.normal(size=(dim, dim)) * (8 / dim) ** 0.5
    shift = np.full(dim, 2.0 * (8 / dim) ** 0.5)

    def draw() -> tuple[Measurements, Task]:
        references = generator.normal(size=(count, dim)) @ mixing
        features = 0.7 * references + shift + generator.normal(size=(count, dim))
        return measured_with(features), replace(task, references=references)

    found = [summarise(*draw(), rung=1) for _ in range(60)]
    for name, error in {"distance": "standard_error", "kid": "kid_error", "objective": "objective_error"}.items():
        scatter = float(np.std([values[name] for values in found]))
        assert float(np.mean([values[error] for values in found])) == pytest.approx(scatter, rel=0.35), name


def test_the_error_of_a_weighted_objective_is_that_of_its_groups_means(task: Task) -> None:
    """For a mean, the jackknife over groups is known: it is the scatter of the groups' means about their mean."""
    psnr = np.random.default_rng(0).normal(25, 3, size=40)
    features = np.random.default_rng(1).normal(size=(40, 8))
    weights = ObjectiveWeights(fid=0, psnr=2)
    weighted = replace(task, references=features, estimates=("weighted",), weights=weights)
    groups = np.array([psnr[group::10].mean() for group in range(10)])
    found = standard_errors(measured_with(features, psnr=psnr), features, weighted)
    assert found["objective_error"] == pytest.approx(2 * groups.std(ddof=1) / np.sqrt(10), rel=1e-12)


def test_three_images_have_no_standard_error(task: Task) -> None:
    features = np.random.default_rng(1).normal(size=(3, 8))
    assert np.isnan(list(standard_errors(measured_with(features), features, task).values())).all()


def test_weights_count_better_images_down() -> None:
    values = {"distance": 5.0, "kid": 0.1, "psnr": 20.0, "ssim": 0.5, "consistency": 3.0, "seconds_per_image": 2.0}
    weights = ObjectiveWeights(fid=1, kid=10, psnr=0.5, ssim=2, consistency=0.1, seconds=3)
    assert objective_value(values, "weighted", weights) == pytest.approx(5 + 1 - 10 - 1 + 0.3 + 6)
    assert objective_value(values, "fid-infinity", weights) == 5.0
    assert objective_value(values, "kid", weights) == 0.1


def test_images_do_not_depend_on_the_batch_nor_on_what_was_judged_before(task: Task) -> None:
    schedule = default_schedule(task.model.noise_schedule, 3)
    other = default_schedule(task.model.noise_schedule, 5)
    first = Evaluator(task).measure(schedule, 0, 16)
    evaluator = Evaluator(replace(task, batch_size=16))
    evaluator.measure(other, 0, 16)
    np.testing.assert_allclose(evaluator.measure(schedule, 0, 16).psnr, first.psnr, atol=0.05)


def test_the_confirmation_draws_other_noise(task: Task) -> None:
    schedule = default_schedule(task.model.noise_schedule, 3)
    first = Evaluator(task).measure(schedule, 0, 4)
    fresh = Evaluator(replace(task, purpose="confirmation")).measure(schedule, 0, 4)
    assert np.all(first.psnr != fresh.psnr)


def test_rungs_are_measured_once_and_kept(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    schedule = default_schedule(task.model.noise_schedule, 3)
    calls = []
    measure = Evaluator.measure

    def counted(self: Evaluator, *args: Any) -> Measurements:
        calls.append(args[1:])
        return measure(self, *args)

    monkeypatch.setattr(Evaluator, "measure", counted)
    small = Evaluator(task).evaluate(schedule, 4)
    large = Evaluator(task).evaluate(schedule, 16)
    again = Evaluator(task).evaluate(replace(schedule, name="another name"), 16)
    assert calls == [(0, 4), (4, 16)]
    assert again == large
    assert "standard_error" in large
    assert "standard_error" not in small
    assert measurement_path(task, schedule, 4, 16).is_file()
    whole = measure(Evaluator(task), schedule, 0, 16)
    assert large["psnr"] == pytest.approx(float(whole.psnr.mean()), abs=0.02)
    assert large["distance"] == pytest.approx(distance(whole.features, task.references, True), rel=0.02)


def test_a_sampler_that_diverges_is_no_winner(task: Task) -> None:
    class Broken(torch.nn.Module):
        size_multiple = 2

        def forward(self, x_up: Any, y_t: torch.Tensor, gamma: Any, classes: Any = None) -> torch.Tensor:
            return y_t * float("nan")

    broken = replace(task, network=Broken())  # type: ignore[arg-type]
    with pytest.raises(DivergedError, match="4 of 4 images"):
        Evaluator(broken).evaluate(default_schedule(task.model.noise_schedule, 3), 4)


def test_feature_networks_say_what_they_are() -> None:
    assert isinstance(SeededFeatures(), FeatureNetwork)
    assert not SeededFeatures().is_fid
