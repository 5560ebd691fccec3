"""Sets of different sizes: numbers by hand, references embedded once, and what is called FID-50k."""

import json

import numpy as np
import pytest
from PIL import Image

from cluster.cli import main
from pipelines.evaluation.evaluate import Folders, evaluate_folders
from pipelines.evaluation.image_sets import ImageSet
from pipelines.evaluation.metric_intervals import Embedded, sampled_rows, tabulate
from pipelines.evaluation.unpaired import set_label, set_numbers
from pipelines.settings.evaluate import MeasureConfig
from pipelines.shards.manifest import load_manifest
from sr3core.features.extractors import SeededFeatures, extract_features
from sr3core.metrics.fid import Moments, frechet_distance
from sr3core.metrics.kid import kernel_distance
from sr3core.metrics.manifold import manifold_hits
from tests.synthetic_shards import write_shards


@pytest.fixture(autouse=True)
def without_inception(monkeypatch):
    """Seeded features: Inception's are tested in tests/sr3core."""
    monkeypatch.setattr("pipelines.evaluation.networks.find_inception", lambda: None)


@pytest.fixture
def folders(tmp_path, photos):
    """Seven blurred photos, and ten others of another size."""
    paths = sorted(photos.glob("*.jpg"))
    for name, chosen, side in (("outputs", paths[:7], 32), ("references", paths[7:17], 48)):
        (tmp_path / name).mkdir()
        for path in chosen:
            Image.open(path).convert("RGB").resize((side, side)).save(tmp_path / name / f"{path.stem}.png")
    return tmp_path


def features(folder) -> np.ndarray:
    return extract_features(
        SeededFeatures(), np.stack([np.asarray(Image.open(path)) for path in sorted(folder.iterdir())])
    )


def test_numbers_are_those_of_the_metrics_on_both_sets(folders, ray_session, capsys):
    out = folders / "numbers.json"
    arguments = ["--outputs", f"ours={folders / 'outputs'}", "--references", str(folders / "references")]
    assert main(["evaluate", "--unpaired", *arguments, "--out", str(out)]) == 0
    result = json.loads(out.read_text())
    ours, theirs = features(folders / "outputs"), features(folders / "references")
    (method,) = result["methods"]
    moments = [Moments.from_features(each) for each in (ours, theirs)]
    assert method["distance"]["mean"] == pytest.approx(frechet_distance(*moments), rel=1e-4)
    assert method["distance"]["low"] < method["distance"]["mean"] < method["distance"]["high"]
    assert method["distance"]["n"] == 7
    assert method["kid"]["mean"] == pytest.approx(kernel_distance(ours, theirs), rel=1e-4)
    hits = manifold_hits(ours, theirs)
    assert (method["precision"]["n"], method["recall"]["n"]) == (7, 10)
    assert method["recall"]["mean"] == pytest.approx(hits.recall.mean())
    assert "n=7 against 10 references" in capsys.readouterr().out
    assert len(result["warnings"]) == 2
    assert "psnr" not in tabulate(result)


def test_references_are_embedded_once_for_all_that_is_compared_with_them(folders, ray_session):
    cache = str(folders / "cache")

    def compare(outputs: str, name: str, **options):
        sets = Folders(outputs=[str(folders / outputs)], references=str(folders / "references"), paired=False)
        return evaluate_folders(sets, str(folders / name), **options)

    compare("references", "a.json", cache=cache)
    files = {path: path.stat().st_mtime_ns for path in (folders / "cache").rglob("*.npz")}
    assert len(files) == 1  # a set compared with itself is one set
    result = compare("outputs", "b.json", cache=cache)
    now = {path: path.stat().st_mtime_ns for path in (folders / "cache").rglob("*.npz")}
    assert files.items() <= now.items()
    assert len(now) == 2
    again = compare("outputs", "c.json", num_actors=2)
    assert again["methods"] == result["methods"]


def test_only_50000_outputs_on_inception_make_an_fid_50k():
    class Inception(SeededFeatures):
        is_fid = True

    label = set_label(Inception(), [50_000], 10_000)
    assert label == f"FID-50k ({Inception().description}, n=50000 against 10000 references)"
    assert set_label(Inception(), [49_999], 10_000).startswith("FID (")
    assert "not FID" in set_label(SeededFeatures(), [50_000], 10_000)


def test_intervals_of_two_sets_hold_the_distance_of_fresh_sets_around_it():
    noise = np.random.default_rng(0)
    sets = [noise.normal(size=(200, 4)) + shift for shift in (0.0, 1.0)]
    a, b = (Embedded(each, Moments.from_features(each)) for each in sets)
    found = set_numbers(a, b, MeasureConfig(num_distance_resamples=50))["distance"]
    fresh = [
        frechet_distance(*(Moments.from_features(noise.normal(size=(200, 4)) + shift) for shift in (0.0, 1.0)))
        for _ in range(100)
    ]
    assert found["standard_error"] == pytest.approx(np.std(fresh, ddof=1), rel=0.4)


def test_what_needs_pairs_is_refused(folders, capsys):
    arguments = ["evaluate", "--unpaired", "--outputs", "a", "--references", "b", "--out", "c", "--inputs", "d"]
    with pytest.raises(SystemExit):
        main(arguments)
    assert "--unpaired compares sets as a whole" in capsys.readouterr().err


@pytest.mark.parametrize("rehearsal", [(), ("--dry-run",)])
def test_what_cannot_be_compared_or_written_is_refused_before_anything_starts(folders, rehearsal, capsys):
    (folders / "one").mkdir()
    first = min((folders / "outputs").iterdir())
    (folders / "one" / first.name).write_bytes(first.read_bytes())
    arguments = ["evaluate", "--unpaired", "--references", str(folders / "references"), *rehearsal]
    assert main([*arguments, "--outputs", str(folders / "one"), "--out", str(folders / "numbers.json")]) == 1
    assert f"{folders / 'one'} holds a single image; a distance between sets needs" in capsys.readouterr().err
    assert main([*arguments, "--outputs", str(folders / "outputs"), "--out", str(folders)]) == 2
    assert f"out: {folders} is a folder; name a .json file" in capsys.readouterr().err


def test_of_a_large_set_the_distance_is_exact_and_all_else_is_of_a_sample_and_says_so(
    folders, ray_session, monkeypatch
):
    arguments = Folders(outputs=[f"ours={folders / 'outputs'}"], references=str(folders / "references"), paired=False)
    whole = evaluate_folders(arguments, str(folders / "whole.json"))
    monkeypatch.setattr("pipelines.evaluation.metric_intervals.MAX_FEATURES", 8)
    found = evaluate_folders(arguments, str(folders / "sampled.json"))
    ours, theirs = features(folders / "outputs"), features(folders / "references")
    rows = sampled_rows(10)
    assert rows is not None
    assert len(rows) == 8
    assert rows.tolist() == sorted(set(rows.tolist()))
    (method,), (method_of_all,) = found["methods"], whole["methods"]
    assert method["distance"]["mean"] == pytest.approx(
        frechet_distance(Moments.from_features(ours), Moments.from_features(theirs))
    )
    assert method["distance"]["n"] == 7
    hits = manifold_hits(ours, theirs[rows])
    assert method["recall"]["mean"] == hits.recall.mean()
    assert method["recall"]["n"] == 8
    assert method_of_all["recall"]["n"] == 10
    for words in (found["variants"]["precision"], found["setting"]):
        assert "of 8 images drawn with seed 0 from each larger set" in words
    assert "drawn with seed" not in whole["variants"]["precision"] + whole["setting"]


def test_images_in_shards_are_told_apart_by_their_manifest_and_not_read(tmp_path, monkeypatch):
    data = write_shards(tmp_path, "8-16", [4], validation=3)
    images = ImageSet.read(f"{data}/8-16", "references", "validation")
    monkeypatch.setattr("pipelines.evaluation.image_sets.read_range", None)
    first = images.hashes(sorted(images.files))
    assert len(set(first)) == 3
    (shard,) = load_manifest(f"{data}/8-16").splits["validation"]
    assert all(digest.startswith(shard.sha256) for digest in first)
