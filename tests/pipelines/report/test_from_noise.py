"""The report of a run that draws images from noise begins with them, not with PSNR, which such images do not have."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from pipelines.report.from_noise import NUM_DRAWN, NUM_FIRST
from pipelines.report.html_report import write_report
from pipelines.runs.run_folder import Run, create_run
from pipelines.settings.presets import small_cascade
from tests.reporting import Page, measured

LABEL = "FID (Inception 2015-12-05, n=30 against 84 references)"


@pytest.fixture
def run(tmp_path: Path, photos: Path) -> Run:
    """A run of a cascade from noise; what it "drew" are photos."""
    made = create_run(tmp_path / "run", measured(small_cascade()), str(tmp_path / "data"), {}, fresh=False)
    folder = made.path / "generated" / "0a1b2c"
    folder.mkdir(parents=True)
    for number, path in enumerate(sorted(photos.glob("*.jpg"))[:30]):
        Image.open(path).resize((64, 64)).save(folder / f"{number:06d}.png")
    table_4 = {
        "format": "sr3-evaluation",
        "format_version": 1,
        "num_images": 30,
        "num_references": 84,
        "distance": {"label": LABEL, "network": "inception-2015-12-05", "is_fid": True},
        "variants": {"distance": LABEL},
        "warnings": [],
        "references": {},
        "methods": [{"name": "sr3", "distance": {"mean": 212.3, "low": 190.0, "high": 240.1}, "kid": {"mean": 0.11}}],
        "provenance": {"outputs": [str(folder)], "references": "originals"},
    }
    (made.path / "table-4.json").write_text(json.dumps(table_4))
    return made


def test_the_page_begins_with_the_verdict_and_six_drawn_images(run: Run) -> None:
    page = Page(write_report(str(run.path)).read_text())
    begin = page.text[""]
    assert "noise → 64×64" in begin
    assert f"{LABEL}: 212.3 [190, 240.1]." in begin
    assert "30 images are too few for this number to mean much: look at them." in begin
    assert "PSNR" not in begin
    drawn = [image["alt"] for image in page.images if "drawn from noise" in (image["alt"] or "")]
    expected = [f"Image {number}, drawn from noise" for number in range(1, NUM_DRAWN + 1)]
    assert drawn == expected[:NUM_FIRST] + expected
    assert next(iter(page.text.keys() - {""})), "sections have texts"
    assert list(page.text)[1] == "drawn"
    assert not {"results", "samples", "compare", "failures"} & set(page.text), "pairs were not compared"
    assert "#results" not in page.loads


def test_a_run_that_was_moved_still_shows_them(run: Run, tmp_path: Path) -> None:
    moved = Path(shutil.move(run.path, tmp_path / "elsewhere"))
    assert write_report(str(moved)).read_text().count('drawn from noise"') == NUM_FIRST + NUM_DRAWN


def test_drawn_images_that_are_gone_are_noted(run: Run) -> None:
    shutil.rmtree(run.path / "generated")
    page = Page(write_report(str(run.path)).read_text())
    assert "the drawn images are omitted" in page.text[""]
    assert f"{LABEL}: 212.3" in page.text[""]


def test_before_anything_is_drawn_the_page_says_how(run: Run) -> None:
    (run.path / "table-4.json").unlink()
    page = Page(write_report(str(run.path)).read_text())
    assert "Not evaluated yet." in page.text[""]
    assert "sr3 evaluate --run run --from-noise 500 draws them" in page.text["drawn"]
