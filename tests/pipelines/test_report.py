"""The report: what it says, what it never says, and that nothing in it needs a network."""

import base64
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines.config import RunConfig
from pipelines.presets import regression_of, small_cascade, small_stage
from pipelines.report import write_report
from pipelines.report_pictures import Pictures
from pipelines.runs import NUM_BUCKETS, Run, create_run
from pipelines.sample import NUM_REPEATED
from sr3core.errors import DataError
from sr3core.images import to_float, to_uint8
from sr3core.metrics.consistency import consistency
from sr3core.metrics.psnr import psnr
from sr3core.metrics.ssim import ssim
from sr3core.resize import resize_area, resize_bicubic, upsample_bicubic
from sr3core.schedules import default_schedule, inference_gammas

METHODS = ("nearest", "bicubic", "16-64-regression", "sr3")
VOID = frozenset({"meta", "link", "img", "input", "br"})
NOT_FID = "Fréchet distance on seeded random convolutions (not FID), n={n}"


def demo_like() -> RunConfig:
    """A run of the demo's kind: a cascade of two stages and the baseline of both together."""
    first, second, both = (small_stage(low, high, 16, 500, 1) for low, high in ((16, 32), (32, 64), (16, 64)))
    return RunConfig(name="demo", stages=(first, second, regression_of(both)))


def make_run(folder: Path, photos: Path, num_images: int = 14, is_fid: bool = False) -> Run:
    """A run folder of the demo's preset with real photos, whose "methods" are simple filters, not networks."""
    config = demo_like()
    run = create_run(folder / "demo", config, str(folder / "data"), {"16-64": "0" * 16}, fresh=False)
    keys = _save_samples(run, sorted(photos.glob("*.jpg"))[:num_images])
    label = f"FID (Inception 2015-12-05, n={num_images})" if is_fid else NOT_FID.format(n=num_images)
    evaluation = {
        "format": "sr3-evaluation",
        "format_version": 1,
        "split": "test",
        "num_images": num_images,
        "keys": keys,
        "schedules": {
            "16-32": {"name": "best-25", "num_steps": 25},
            "32-64": {"name": "best-10", "num_steps": 10},
        },
        "distance": {
            "label": label,
            "network": "inception-2015-12-05" if is_fid else "seeded",
            "is_fid": is_fid,
        },
        "methods": [_measure(run, name, keys, 200 - 40 * i) for i, name in enumerate(METHODS)],
        "references": {},
        "variants": {"psnr": "PSNR dB (RGB)", "ssim": "SSIM (11x11)", "consistency": "consistency", "distance": label},
        "intervals": "95% bootstrap intervals over images",
        "warnings": [],
        "differences": {"16-64-regression": {"than": "sr3", **_differences(run, keys)}},
        "seed": 0,
        "provenance": {"versions": {"torch": "2.13.0"}},
    }
    (run.path / "evaluation.json").write_text(json.dumps(evaluation))
    for stage in run.stages:
        _write_metrics(stage.metrics, stage.config.num_steps, stage.config.model.kind == "regression")
    _write_search(run, "16-32", gain=0.8, confirmed=True, is_fid=is_fid, label=label)
    _write_search(run, "32-64", gain=0.97, confirmed=False, is_fid=is_fid, label=label)
    parts = [
        ("prepare", 9.5, True),
        ("train", 214.0, False),
        ("search", 97.1, False),
        ("evaluate", 30.2, False),
    ]
    timings = {"parts": [{"name": name, "seconds": seconds, "reused": reused} for name, seconds, reused in parts]}
    (run.path / "timings.json").write_text(json.dumps(timings))
    return run


def _differences(run: Run, keys: list[str]) -> dict[str, Any]:
    """Regression minus SR3: by hand for PSNR, with an interval that holds 0 for SSIM, without one for the distance."""
    ours, theirs = (_measure(run, name, keys, 0)["psnr"]["mean"] for name in ("16-64-regression", "sr3"))
    gap = ours - theirs
    return {
        "psnr": {"mean": gap, "low": gap - 0.1, "high": gap + 0.1},
        "ssim": {"mean": 0.01, "low": -0.01, "high": 0.03},
        "distance": {"mean": 40.0},
    }


def _save_samples(run: Run, sources: list[Path]) -> list[str]:
    noise = np.random.Generator(np.random.Philox(0))
    for source in sources:
        high = resize_area(np.asarray(Image.open(source).convert("RGB")), 64)
        low = resize_bicubic(high, 16)
        bicubic = to_uint8(upsample_bicubic(to_float(low[None]), 64))[0]
        detail = high.astype(float) - bicubic
        grain = noise.normal(0, 9, high.shape)
        pictures = {
            "low": low,
            "reference": high,
            "nearest": low.repeat(4, 0).repeat(4, 1),
            "bicubic": bicubic,
            "16-64-regression": bicubic + 0.35 * detail,
            "sr3": bicubic + 0.4 * detail + grain,
        }
        for name, picture in pictures.items():
            path = run.path / "samples" / name / f"{source.stem}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.clip(np.rint(picture), 0, 255).astype(np.uint8)).save(path)
        for name in ("sr3-1", "sr3-2") if source in sources[:NUM_REPEATED] else ():
            path = run.path / "samples" / name / f"{source.stem}.png"
            path.parent.mkdir(exist_ok=True)
            again = bicubic + 0.4 * detail + noise.normal(0, 9, high.shape)
            Image.fromarray(np.clip(np.rint(again), 0, 255).astype(np.uint8)).save(path)
    return [source.stem for source in sources]


def _measure(run: Run, method: str, keys: list[str], distance: float) -> dict[str, Any]:
    def read(name: str) -> np.ndarray:
        return np.stack([np.asarray(Image.open(run.path / "samples" / name / f"{key}.png")) for key in keys])

    images, references, low = read(method), read("reference"), read("low")
    values = {
        "psnr": psnr(images, references),
        "ssim": ssim(images, references),
        "consistency": consistency(images, low),
    }
    found: dict[str, Any] = {
        name: {"mean": float(v.mean()), "standard_error": float(v.std(ddof=1) / np.sqrt(len(v)))}
        for name, v in values.items()
    }
    return {"name": method, **found, "distance": {"mean": float(distance)}}


def _write_metrics(path: Path, num_steps: int, regression: bool) -> None:
    noise = np.random.Generator(np.random.Philox(1))
    lines: list[dict[str, Any]] = []
    for step in sorted({*range(0, num_steps, 20), num_steps}):
        loss = 0.12 + 0.6 * np.exp(-step / 90)
        if step:
            common = {
                "gradient_norm": 0.5,
                "learning_rate": 1e-3,
                "images_per_second": 55.0,
                "data_wait": 0.04,
            }
            lines.append({"step": step, "kind": "train", "loss": loss * noise.normal(1, 0.06), **common})
        if step % 100 == 0 or step == num_steps:
            ratio = {"psnr": 20.5 - 6 * np.exp(-step / 60)} if regression else _buckets(loss)
            lines.append({"step": step, "kind": "validation", "loss": loss + 0.01, **ratio})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({**line, "seconds": line["step"] * 0.29}) + "\n" for line in lines))


def _buckets(loss: float) -> dict[str, float]:
    """A loss by noise level; no image fell into the third part."""
    return {f"loss_bucket_{i}": float(loss * (1 + i)) for i in range(NUM_BUCKETS) if i != 2}


def _write_search(run: Run, stage: str, gain: float, confirmed: bool, is_fid: bool, label: str) -> None:
    training = run.stage(stage).config.model.noise_schedule
    default = default_schedule(training, 10)
    trials = [_trial("trained-respaced", default.gammas, 100.0, "default")]
    for index, family in enumerate(("linear", "quadratic", "geometric", "cosine", "sigmoid", "karras")):
        gammas = tuple(inference_gammas(family, 10, 1 - 1e-5, default.gammas[-1]))  # type: ignore[arg-type]
        trials.append(_trial(f"{family}-ddim", gammas, 100.0 * (gain + 0.07 * index), "search"))
    trials.append({**_trial("half-way", trials[1]["gammas"], 140.0, "search"), "status": "stopped", "num_images": 16})
    lost = {"status": "failed", "distance": None, "objective": None, "error": "<worker> died"}
    trials.append({**_trial("lost", trials[1]["gammas"], 0.0, "search"), **lost})
    again = [_trial("linear-ddim", trials[1]["gammas"], 83.0 if confirmed else 104.0, "search"), trials[0]]
    report = {
        "format": "sr3-search",
        "format_version": 2,
        "stage": stage,
        "num_steps": 10,
        "label": label,
        "is_fid": is_fid,
        "feature_network": "seeded",
        "split": "validation",
        "num_images": 64,
        "best": "linear-ddim",
        "default": "trained-respaced",
        "trials": trials,
        "confirmation": {
            "split": "test", "num_images": 32, "label": label, "trials": again, "winner_is_better": confirmed
        },
        "config": {"stage": stage, "num_steps": 10},
        "provenance": {"checkpoint": "step-00000800"},
        "seconds": 97.0,
    }  # fmt: skip
    path = run.stage(stage).path / "search" / "10-0a1b2c" / "search.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report))
    schedule = run.stage(stage).schedules / "best-10.json"
    schedule.parent.mkdir(parents=True, exist_ok=True)
    schedule.write_text(default.to_json())


def _trial(name: str, gammas: Any, distance: float, origin: str) -> dict[str, Any]:
    return {
        "name": name, "origin": origin, "status": "done",
        "num_steps": 10, "num_evaluations": 10, "budget": 10, "gammas": list(map(float, gammas)),
        "sampler": {"algorithm": "ddim", "variance": 1.0, "eta": 0.0, "churn": 0.0, "clip": "static"}, "num_images": 64,
        "objective": distance, "distance": distance, "standard_error": 2.5, "kid": 0.01, "psnr": 18 + distance / 60,
        "ssim": 0.6, "consistency": 12.0, "seconds_per_image": 0.051, "point": None, "error": None,
    }  # fmt: skip


class Page(HTMLParser):
    """A parsed page: its visible text by section, what it loads, and whether every tag is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: dict[str, str] = {"": ""}
        self.loads: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self._section = ""
        self.feed(text)
        self.close()
        self.text = {section: " ".join(words.split()) for section, words in self.text.items()}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.loads += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action")]
        if tag == "img":
            self.images.append(found)
        if tag == "section":
            self._section = found["id"] or ""
            self.text[self._section] = ""
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        if not {"script", "style"} & set(self.open):
            self.text[self._section] += f"{data} "


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
    assert "A demo of minutes is no reproduction of the paper" in page.text[""]
    assert NOT_FID.format(n=14) in page.text[""]
    assert "not the task of this run" in page.text["paper"]


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
    assert "no full rank" in page.text["results"]


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
    monkeypatch.setattr("pipelines.report_pictures.MAX_GALLERY_BYTES", 50_000)
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
    text = Path(write_report(str(run.path))).read_text().split('id="failures"')[1]
    keys = json.loads((run.path / "evaluation.json").read_text())["keys"]
    ranked = sorted(keys, key=lambda key: sign * float(metric(read("sr3", key), read(against, key))[0]))
    for heading, expected in (("Worst", ranked[:3]), ("Best", ranked[: -3 - 1 : -1])):
        shown = text.split(f"{heading} by {title}")[1]
        assert re.findall(r'data-key="([^"]+)"', shown)[:3] == expected


def test_every_table_has_the_papers_numbers_ours_and_the_difference(page: Page) -> None:
    text = page.text["paper"]
    for words in ("Metric Method Paper Ours What is different in the setting", "PULSE 16.88 not run"):
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
    assert re.search(r"Regression ahead in SSIM .* undecided: the interval holds 0 SR3 slightly", text)


def test_losses_by_noise_level_are_drawn_at_a_few_moments(page: Page) -> None:
    assert page.text["training"].count("held-out loss by noise level") == 2  # regression has no noise levels
    assert "step 0" in page.text["training"]
    assert "step 500" in page.text["training"]


def test_several_samples_of_one_input_and_where_they_differ(page: Page, run: Run) -> None:
    assert "Sample 3" in page.text["samples"]
    assert "Sample 4" not in page.text["samples"]
    pictures = Pictures.find(run, json.loads((run.path / "evaluation.json").read_text())["keys"], [])
    spreads = [strip["spread"] for strip in pictures.strips()]
    assert len(spreads) == 6
    # The deviation of three draws of the noise that the samples were given is sqrt(pi) / 2 of its own, on average.
    assert spreads == pytest.approx([9 * np.sqrt(np.pi) / 2] * 6, rel=0.15)


def test_a_patch_is_cut_where_bicubic_misses_most(tmp_path: Path) -> None:
    run = create_run(tmp_path / "run", demo_like(), str(tmp_path), {}, fresh=False)
    grey = np.full((64, 64, 3), 128, np.uint8)
    original = grey.copy()
    original[40:56, 8:24] = np.indices((16, 16)).sum(axis=0)[..., None] % 2 * 255
    for name, picture in {"low": grey[::4, ::4], "bicubic": grey, "reference": original}.items():
        (run.path / "samples" / name).mkdir(parents=True)
        Image.fromarray(picture).save(run.path / "samples" / name / "key.png")
    (row,) = Pictures.find(run, ["key"], []).patches(["key"])
    assert row["frame"] == [100 * 8 / 64, 100 * 40 / 64, 25]
    cut = np.asarray(Image.open(io.BytesIO(base64.b64decode(row["cells"][-1]["patch"].partition(",")[2]))))
    np.testing.assert_array_equal(cut, original[40:56, 8:24])


def test_other_runs_fill_the_tables_of_their_task(run: Run, tmp_path: Path, photos: Path) -> None:
    other = make_run(tmp_path, photos, 5)
    (other.path / "table-4.json").write_text((other.path / "evaluation.json").read_text())
    page = Page(write_report(str(run.path), others=[str(other.path)]).read_text())
    assert "Ours: demo" not in page.text["paper"].split("Table 4")[0]
    assert "SR3 (two stages) 11.3 not measured" in page.text["paper"]  # seeded features are no FID
    assert page.text["results"].count("95% bootstrap intervals") == 1
    assert "Run demo, preset demo" in page.text["results"]


def test_search_is_reported_as_it_ended(page: Page) -> None:
    text = page.text["schedules"]
    assert "80.0 against 100.0 of the default trained-respaced (−20%)" in text
    assert "the gain is confirmed" in text
    assert "the gain did not carry over; keep the default" in text
    assert "stopped after 16 images" in text
    assert "failed: <worker> died" in text


def test_search_that_found_nothing_says_so(tmp_path: Path, photos: Path) -> None:
    run = make_run(tmp_path, photos, 4)
    path = next(run.path.glob("16-32/search/*/search.json"))
    path.write_text(json.dumps({**json.loads(path.read_text()), "best": "trained-respaced", "confirmation": None}))
    page = Page(write_report(str(run.path)).read_text())
    assert "The search found nothing better than the default schedule." in page.text["schedules"]


def _add_search(run: Run, name: str, **changes: Any) -> None:
    """Another search of the first stage, like the one that is there but for some of its content."""
    known = next(run.path.glob("16-32/search/10-*/search.json"))
    path = known.parent.parent / name / "search.json"
    path.parent.mkdir()
    path.write_text(json.dumps({**json.loads(known.read_text()), **changes}))


def test_searches_stand_by_rising_budget_each_under_its_name(tmp_path: Path, photos: Path) -> None:
    run = make_run(tmp_path, photos, 4)
    for steps in (100, 25):
        _add_search(run, f"{steps}-0a1b2c", num_steps=steps)
    text = Page(write_report(str(run.path)).read_text()).text["schedules"]
    places = [text.index(f"16-32, {steps} evaluations: search {steps}-0a1b2c") for steps in (10, 25, 100)]
    assert places == sorted(places)


def test_a_fixed_schedule_that_wins_is_told_in_whole_sentences(tmp_path: Path, photos: Path) -> None:
    run = make_run(tmp_path, photos, 4)
    path = next(run.path.glob("16-32/search/*/search.json"))
    path.write_text(path.read_text().replace('"origin": "search"', '"origin": "default"'))
    text = Page(write_report(str(run.path)).read_text()).text["schedules"]
    assert "nothing that the search proposed was better. On 32 other images" in text


def test_the_objective_decides_and_is_named(tmp_path: Path, photos: Path) -> None:
    run = make_run(tmp_path, photos, 4)
    path = next(run.path.glob("16-32/search/*/search.json"))
    content = json.loads(path.read_text())
    winner, default = content["confirmation"]["trials"]
    winner["objective"], default["objective"] = 0.02, 0.01  # the distance says the contrary
    path.write_text(json.dumps({**content, "config": {**content["config"], "objective": "kid"}}))
    text = Page(write_report(str(run.path)).read_text()).text["schedules"]
    assert "did best by the objective kid" in text
    assert text.count("the gain did not carry over") == 2
    assert "the gain is confirmed" not in text


def test_a_front_is_drawn_by_cost(tmp_path: Path, photos: Path) -> None:
    run = make_run(tmp_path, photos, 4)
    content = json.loads(next(run.path.glob("16-32/search/*/search.json")).read_text())
    names = ["linear-ddim", "karras-ddim", "sigmoid-ddim"]
    for trial in content["trials"]:
        cost = {"karras-ddim": 2, "sigmoid-ddim": 4}.get(trial["name"], trial["num_evaluations"])
        trial.update(num_evaluations=cost, num_steps=cost)
    _add_search(run, "front", trials=content["trials"], front=[names[1], names[2], names[0]])
    html = write_report(str(run.path)).read_text()
    drawing = re.search(r'aria-label="The front: [^"]*"', html)
    assert drawing is not None
    assert "against network evaluations" in drawing[0]
    assert "front from 115 to 80" in drawing[0]
    assert Page(html).text["schedules"].count("The front") == 1


def test_every_schedule_file_is_drawn_beside_the_trained_one(tmp_path: Path, photos: Path) -> None:
    run = make_run(tmp_path, photos, 4)
    budgets = (2, 3, 4, 5, 6, 7, 8, 9, 10, 100)
    training = run.stage("16-32").config.model.noise_schedule
    for steps in budgets:
        (run.stage("16-32").schedules / f"best-{steps}.json").write_text(default_schedule(training, steps).to_json())
    text = Page(write_report(str(run.path)).read_text()).text["schedules"].partition(" 32-64 ")[0]
    places = [text.index(f"best-{steps} ") for steps in budgets]
    assert places == sorted(places)
    assert text.count("trained schedule, respaced to 100") == 2, "in each of the charts that so many need"


def test_a_searchs_configuration_is_printed_once(tmp_path: Path, photos: Path) -> None:
    run = make_run(tmp_path, photos, 4)
    _add_search(run, "again", provenance={"git_commit": "0a1b2c", "config": {"num_steps": 10}})
    text = Page(write_report(str(run.path)).read_text()).text["schedules"]
    assert "provenance.git_commit 0a1b2c" in text
    assert "provenance.config" not in text


def test_differences_of_an_evaluation_without_pairs_are_not_called_paired(tmp_path: Path, photos: Path) -> None:
    run = make_run(tmp_path, photos, 4)
    content = json.loads((run.path / "evaluation.json").read_text())
    del content["differences"]
    (run.path / "evaluation.json").write_text(json.dumps(content))
    text = Page(write_report(str(run.path)).read_text()).text["paper"]
    assert "the opposite order (no interval)" in text or "same order (no interval)" in text
    assert "difference, paired" not in text
    assert "resampled together" not in text


def test_cost_and_configuration(page: Page) -> None:
    assert "prepare reused" in page.text["cost"]
    assert "in all 5 min 51 s" in page.text["cost"]
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
        "paper": "Nothing to compare",
        "failures": "No sampled images",
        "training": "No metrics yet",
        "schedules": "No schedule was searched",
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
    assert "No record of a search" in page.text["schedules"]


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
    with pytest.raises(DataError, match="is no run"):
        write_report(str(tmp_path))


def test_a_run_with_a_base_model_says_where_its_images_come_from(tmp_path):
    run = create_run(tmp_path / "run", small_cascade(), str(tmp_path), {}, fresh=False)
    page = write_report(str(run.path)).read_text()
    assert "noise → 32×32, base model by v, L1" in page
    assert "32×32 → 64×64, SR3 by v, L1" in page
