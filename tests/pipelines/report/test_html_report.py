"""The report: what it says, what it never says, and that nothing in it needs a network."""

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines.report.gallery import patches, strips
from pipelines.report.html_report import write_report
from pipelines.report.pictures import find_pictures
from pipelines.runs.run_folder import Run, create_run
from pipelines.settings.presets import small_cascade
from sr3core.errors import DataError
from sr3core.metrics.consistency import consistency
from sr3core.metrics.psnr import psnr
from sr3core.metrics.ssim import ssim
from tests.reporting import NOT_FID, Page, demo_like, make_run, measured


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> Run:
    """A complete run, evaluated without Inception weights."""
    return make_run(tmp_path_factory.mktemp("run"), photos)


@pytest.fixture(scope="module")
def page(run: Run) -> Page:
    """Its report."""
    return Page(write_report(str(run.path)).read_text())


def test_page_is_well_formed_and_loads_nothing_from_outside(page: Page, run: Run) -> None:
    assert page.open == []
    assert page.loads
    assert all(link.startswith(("data:", "#")) for link in page.loads)
    text = (run.path / "report.html").read_text()
    assert "http://" not in text
    assert "https://" not in text
    assert "@import" not in text
    assert not re.search(r"url\((?!data:)", text)
    assert not list(run.path.glob(".report*"))


def test_demo_says_what_it_is(page: Page) -> None:
    assert "A demo that takes minutes does not reproduce the paper" in page.text[""]
    assert NOT_FID.format(n=14) in page.text[""]
    assert "not the task of this run" in page.text["paper"]


def test_the_verdict_comes_before_every_number(page: Page) -> None:
    words = "16×16 → 64×64 SR3 is ahead of bicubic on PSNR; SSIM does not tell them apart."
    assert words in page.text[""]
    assert "Held-out loss was still falling in 16-32 and 32-64" in page.text[""]


def test_without_the_reference_network_no_number_is_called_fid(page: Page) -> None:
    for section, text in page.text.items():
        allowed = re.sub(r"not FID|the paper's FID|SR3 ahead in FID|FID(-50k)? ↓", "", text, flags=re.IGNORECASE)
        assert "FID" not in allowed, section
    rows = re.search(r"FID ↓ Reference (.*?) IS ↑", page.text["paper"])
    assert rows
    assert "the paper's FID has no counterpart here" in rows[1]
    assert "Regression 15.2 not measured SR3 5.2 not measured" in rows[1]


def test_with_the_reference_network_the_distance_is_fid(tmp_path: Path, photos: Path) -> None:
    page = Page(write_report(str(make_run(tmp_path, photos, 6, is_fid=True).path)).read_text())
    assert "FID (Inception 2015-12-05, n=6)" in page.text["results"]
    assert "not FID" not in "".join(page.text.values())
    assert "Regression 15.2 120.0 SR3 5.2 80.0" in page.text["paper"]
    assert "does not have full rank" in page.text["results"]


def test_results_mark_the_best_and_print_errors(page: Page, run: Run) -> None:
    methods = {m["name"]: m for m in json.loads((run.path / "evaluation.json").read_text())["methods"]}
    ours = methods["16-64-regression"]["psnr"]
    assert f"Regression {ours['mean']:.2f} (best) ± {ours['standard_error']:.2f}" in page.text["results"]
    assert "SR3" in page.text["results"]
    assert "80.0 (best)" in page.text["results"]
    assert "Means over 14 held-out images" in page.text["results"]


def test_grid_shows_the_first_images_in_order(page: Page, run: Run) -> None:
    assert "The first 12 of 14" in page.text["samples"]
    assert len(page.images) >= 5 * 12
    assert all(image.get("alt") for image in page.images if image.get("src"))
    keys = json.loads((run.path / "evaluation.json").read_text())["keys"]
    shown = re.findall(r'data-number="(\d+)" data-key="([^"]+)"', (run.path / "report.html").read_text())
    assert shown[:12] == [(str(number), key) for number, key in enumerate(keys[:12], 1)]


def test_gallery_ends_before_the_file_is_too_large(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.report.gallery.MAX_GALLERY_BYTES", 50_000)
    page = Page(write_report(str(make_run(tmp_path, photos, 8).path)).read_text())
    first = re.search(r"The first (\d) of 8", page.text["samples"])
    assert first
    assert 1 <= int(first[1]) < 8


@pytest.mark.parametrize(
    ("metric", "against", "sign"), [(psnr, "reference", 1), (ssim, "reference", 1), (consistency, "low", -1)]
)
def test_worst_and_best_images_are_those_of_each_metric(run: Run, metric: Any, against: str, sign: int) -> None:
    def read(method: str, key: str) -> np.ndarray:
        return np.asarray(Image.open(run.path / "samples" / method / f"{key}.png"))[None]

    title = {psnr: "PSNR", ssim: "SSIM", consistency: "consistency"}[metric]
    text = Path(write_report(str(run.path))).read_text(encoding="utf-8").split('id="failures"')[1]
    keys = json.loads((run.path / "evaluation.json").read_text())["keys"]
    ranked = sorted(keys, key=lambda key: sign * float(metric(read("sr3", key), read(against, key))[0]))
    shown = {re.sub(r"Image \d+: ", "", why): key for why, key in re.findall(WHY, text)}
    for side, expected in (("worst", ranked[:3]), ("best", ranked[: -3 - 1 : -1])):
        for rank, key in zip(("", "second ", "third "), expected, strict=True):
            assert [found for why, found in shown.items() if f"{rank}{side} by {title}" in why.split(", ")] == [key]


WHY = r'<p class="why">([^<]*)</p>\s*<div class="row" data-number="\d+" data-key="([^"]+)"'


@pytest.mark.parametrize(("num_images", "worst", "best"), [(1, 0, 0), (3, 1, 1), (5, 2, 2)])
def test_few_images_are_not_shown_twice(tmp_path: Path, photos: Path, num_images: int, worst: int, best: int) -> None:
    text = write_report(str(make_run(tmp_path, photos, num_images).path)).read_text().split('id="failures"')[1]
    found = re.findall(WHY, text)
    for side, least in (("worst", worst), ("best", best)):
        keys = [key for why, key in found if side in why]
        assert len(keys) >= least
        assert bool(keys) == bool(least)
        assert len(set(keys)) == len(keys)
    assert "Every image in numbers" in text


def test_every_table_has_the_papers_numbers_ours_and_the_difference(page: Page) -> None:
    text = page.text["paper"]
    for words in ("Metric Method Paper Ours How the setting differs", "PULSE 16.88 not run"):
        assert words in text
    for number in range(1, 6):
        assert f"Table {number}: " in text
    assert "Another task: 4× to 64×64 here, 8× to 128×128 there." in text
    assert "PSNR dB (RGB); n=14" in text
    assert "13.1 not run" in text  # Table 5, which this run has not measured
    assert "sr3 ablate PRESET" in text


def test_the_order_of_the_methods_comes_with_paired_intervals(page: Page) -> None:
    text = page.text["paper"]
    assert re.search(r"Regression ahead in PSNR .* same order Regression ahead in SSIM", text)
    assert re.search(r"Regression ahead in SSIM .* undecided: the interval contains 0 SR3 slightly", text)


def test_losses_by_noise_level_are_drawn_at_a_few_moments(page: Page) -> None:
    assert page.text["training"].count("held-out loss by noise level") == 2  # regression has no noise levels
    assert "step 0" in page.text["training"]
    assert "step 500" in page.text["training"]


def test_several_samples_of_one_input_and_where_they_differ(page: Page, run: Run) -> None:
    assert "Sample 3" in page.text["samples"]
    assert "Sample 4" not in page.text["samples"]
    keys = json.loads((run.path / "evaluation.json").read_text())["keys"]
    pictures = find_pictures(run.path / "samples", {"low": "Input", "sr3": "SR3", "reference": "Original"}, keys, [])
    spreads = [strip["spread"] for strip in strips(pictures)]
    assert len(spreads) == 6
    # The deviation of three draws of the noise that the samples were given is sqrt(pi) / 2 of its own, on average.
    assert spreads == pytest.approx([9 * np.sqrt(np.pi) / 2] * 6, rel=0.15)


def test_a_patch_is_cut_where_bicubic_misses_most(tmp_path: Path) -> None:
    grey = np.full((64, 64, 3), 128, np.uint8)
    original = grey.copy()
    original[40:56, 8:24] = np.indices((16, 16)).sum(axis=0)[..., None] % 2 * 255
    for name, picture in {"low": grey[::4, ::4], "bicubic": grey, "reference": original}.items():
        (tmp_path / name).mkdir()
        Image.fromarray(picture).save(tmp_path / name / "key.png")
    methods = {"low": "Input", "bicubic": "Bicubic", "reference": "Original"}
    (row,) = patches(find_pictures(tmp_path, methods, ["key"], []), ["key"])
    assert row["frame"] == [100 * 8 / 64, 100 * 40 / 64, 25]
    cut = np.asarray(Image.open(io.BytesIO(base64.b64decode(row["cells"][-1]["patch"].partition(",")[2]))))
    np.testing.assert_array_equal(cut, original[40:56, 8:24])


def test_other_runs_fill_the_tables_of_their_task(run: Run, tmp_path: Path, photos: Path) -> None:
    other = make_run(tmp_path, photos, 5)
    drawn = json.loads((other.path / "evaluation.json").read_text())
    drawn |= {"num_references": 4, "provenance": {"outputs": ["generated/a"]}}
    (other.path / "table-4.json").write_text(json.dumps(drawn))
    page = Page(write_report(str(run.path), others=[str(other.path)]).read_text())
    assert "Ours: demo" not in page.text["paper"].split("Table 4")[0]
    assert "SR3 (two stages) 11.3 not measured" in page.text["paper"]  # seeded features are no FID
    assert page.text["results"].count("95% bootstrap intervals") == 1
    assert "Run demo, preset demo" in page.text["results"]


def test_differences_of_an_evaluation_without_pairs_are_not_called_paired(tmp_path: Path, photos: Path) -> None:
    run = make_run(tmp_path, photos, 4)
    content = json.loads((run.path / "evaluation.json").read_text())
    del content["differences"]
    (run.path / "evaluation.json").write_text(json.dumps(content))
    text = Page(write_report(str(run.path)).read_text()).text["paper"]
    assert text.count("order (no interval)") == 3, "PSNR, SSIM and consistency; the distance is no FID"
    assert "difference, paired" not in text
    assert "resampled together" not in text


def test_cost_and_configuration(page: Page) -> None:
    assert "prepare reused" in page.text["cost"]
    assert "total 5 min 51 s" in page.text["cost"]
    assert "optimizer.learning_rate" in page.text["configuration"]
    assert "git_commit" in page.text["configuration"]


def test_an_untrained_run_says_what_is_absent(tmp_path: Path) -> None:
    run = create_run(tmp_path / "new", demo_like(), str(tmp_path), {}, fresh=False)
    page = Page(write_report(str(run.path)).read_text())
    assert page.open == []
    for section, sentence in {
        "results": "No evaluation yet",
        "samples": "No sampled images",
        "compare": "No sampled images",
        "paper": "There is nothing to compare",
        "failures": "No sampled images",
        "training": "No metrics yet",
        "schedules": "No schedule has been searched",
    }.items():
        assert sentence in page.text[section], section


def test_missing_damaged_and_foreign_files_are_named_not_fatal(tmp_path: Path, photos: Path) -> None:
    run = make_run(tmp_path, photos, 6)
    keys = json.loads((run.path / "evaluation.json").read_text())["keys"]
    (run.path / "samples" / "sr3" / f"{keys[0]}.png").unlink()
    (run.path / "samples" / "sr3" / f"{keys[1]}.png").write_bytes(b"no picture")
    (run.path / "timings.json").write_text("{")
    search = next(run.path.glob("16-32/search/*/search.json"))
    search.write_text(json.dumps({**json.loads(search.read_text()), "format_version": 9}))
    page = Page(write_report(str(run.path)).read_text())
    for sentence in ("1 of 6 images lack a sample", keys[1], "timings.json is damaged", "('sr3-search', 9)"):
        assert sentence in page.text[""], sentence
    assert "The first 4 of 4" in page.text["samples"]
    assert "There is no record of a search" in page.text["schedules"]


def test_text_from_files_is_escaped(tmp_path: Path, photos: Path) -> None:
    run = make_run(tmp_path, photos, 4)
    path = run.path / "evaluation.json"
    content = json.loads(path.read_text())
    content["distance"]["label"] = "<script>alert(1)</script>"
    content["methods"][0]["name"] = "<b>mine</b>"
    path.write_text(json.dumps(content))
    text = write_report(str(run.path)).read_text()
    assert "<script>alert" not in text
    assert "<b>mine" not in text.lower()


def test_no_run_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a run"):
        write_report(str(tmp_path))


def test_a_run_with_a_base_model_says_where_its_images_come_from(tmp_path):
    run = create_run(tmp_path / "run", measured(small_cascade()), str(tmp_path), {}, fresh=False)
    page = write_report(str(run.path)).read_text()
    assert "noise → 32×32, base model by v, L1" in page
    assert "32×32 → 64×64, SR3 by v, L1" in page
