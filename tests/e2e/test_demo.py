"""`sr3 demo` itself, with fewer photos, steps and trials."""

import json

import pytest

from cluster import demo
from cluster.cli import main
from pipelines.settings.presets import regression_of, small_stage
from pipelines.settings.train import RunConfig
from tests.preparing import some_photos
from tune.search.settings import SearchConfig


def tiny_demo() -> RunConfig:
    """The demo's stages, of a few steps each; one of them on Ray Train's workers, as all are in the demo."""
    baseline = regression_of(small_stage(12, 48, base_channels=8, num_steps=4, num_workers=0), learning_rate=1e-3)
    stages = (small_stage(low, 2 * low, base_channels=8, num_steps=4, num_workers=low // 24) for low in (12, 24))
    return RunConfig(name="demo", stages=(*stages, baseline))


@pytest.mark.slow
def test_the_demo_ends_with_a_report_and_does_nothing_twice(photos, tmp_path, monkeypatch, capsys, ray_session):
    def tiny_search(**settings) -> SearchConfig:
        few = {"num_trials": 7, "num_refinements": 1, "num_images": 8, "num_steps": 3, "warm_starts": ()}
        return SearchConfig(**{**settings, **few, "num_concurrent": 1})

    monkeypatch.setattr(demo, "PHOTOS", some_photos(photos, tmp_path / "photos", 100))
    monkeypatch.setattr(demo, "demo_preset", tiny_demo)
    monkeypatch.setattr(demo, "SearchConfig", tiny_search)
    out = tmp_path / "demo"
    assert main(["demo", "--out", str(out)]) == 0
    assert f"Open the report: {out / 'report.html'}" in capsys.readouterr().out.splitlines()[-1].replace("file://", "")
    report = (out / "report.html").read_text()
    assert "data:image/png" in report
    methods = {method["name"] for method in json.loads((out / "evaluation.json").read_text())["methods"]}
    assert {"bicubic", "12-48-regression", "sr3"} <= methods
    made = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.suffix in (".tar", ".safetensors", ".png")}
    assert made
    assert main(["demo", "--out", str(out)]) == 0
    assert {path: path.stat().st_mtime_ns for path in made} == made
