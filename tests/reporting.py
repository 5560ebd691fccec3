"""Run folders for the report's tests, made of real photos and simple filters, and a page as a browser would read it."""

import dataclasses
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipelines.runs.run_folder import NUM_BUCKETS, Run, create_run
from pipelines.sampling.held_out import NUM_REPEATED
from pipelines.settings.presets import regression_of, small_stage
from pipelines.settings.train import RunConfig
from sr3core.config import override
from sr3core.diffusion.schedules import default_schedule, inference_gammas
from sr3core.images.pixels import to_float, to_uint8
from sr3core.images.resize import resize_area, resize_bicubic, upsample_bicubic
from sr3core.metrics.consistency import consistency
from sr3core.metrics.psnr import psnr
from sr3core.metrics.ssim import ssim

METHODS = ("nearest", "bicubic", "16-64-regression", "sr3")
VOID = frozenset({"meta", "link", "img", "input", "br"})
NOT_FID = "Fréchet distance on seeded random convolutions (not FID), n={n}"


def demo_like() -> RunConfig:
    """A run of the demo's kind: a cascade of two stages and the baseline of both together."""
    first, second, both = (small_stage(low, high, 16, 500, 1) for low, high in ((16, 32), (32, 64), (16, 64)))
    return RunConfig(name="demo", stages=(first, second, regression_of(both)))


def measured(config: RunConfig) -> RunConfig:
    """The run with the unit of its residuals, which is otherwise measured on the data."""
    stages = (
        override(stage, model__objective__residual_scale=(0.1,) * 3)
        if stage.model.objective.residual != "none"
        else stage
        for stage in config.stages
    )
    return dataclasses.replace(config, stages=tuple(stages))


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
        "differences": {name: {"than": "sr3", **_differences(run, name, keys)} for name in METHODS[:-1]},
        "seed": 0,
        "provenance": {"versions": {"torch": "2.13.0"}},
    }
    (run.path / "evaluation.json").write_text(json.dumps(evaluation))
    for stage in run.stages:
        _write_metrics(stage.metrics, stage.config.num_steps, stage.config.model.kind == "regression")
    write_search(run, "16-32", gain=0.8, confirmed=True, is_fid=is_fid, label=label)
    write_search(run, "32-64", gain=0.97, confirmed=False, is_fid=is_fid, label=label)
    parts = [
        ("prepare", 9.5, True),
        ("train", 214.0, False),
        ("search", 97.1, False),
        ("evaluate", 30.2, False),
    ]
    timings = {"parts": [{"name": name, "seconds": seconds, "reused": reused} for name, seconds, reused in parts]}
    (run.path / "timings.json").write_text(json.dumps(timings))
    return run


def _differences(run: Run, method: str, keys: list[str]) -> dict[str, Any]:
    """A method minus SR3: by hand for PSNR, with an interval around 0 for SSIM, without one for the distance."""
    ours, theirs = (_measure(run, name, keys, 0)["psnr"]["mean"] for name in (method, "sr3"))
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
    path.write_text(
        "".join(json.dumps({**line, "seconds": line["step"] * 0.29}) + "\n" for line in lines), encoding="utf-8"
    )


def _buckets(loss: float) -> dict[str, float]:
    """A loss by noise level; no image fell into the third part."""
    return {f"loss_bucket_{i}": float(loss * (1 + i)) for i in range(NUM_BUCKETS) if i != 2}


def write_search(run: Run, stage: str, gain: float, confirmed: bool, is_fid: bool, label: str) -> None:
    training = run.stage(stage).config.model.noise_schedule
    default = default_schedule(training, 10)
    trials = [make_trial("trained-respaced", default.gammas, 100.0, "default")]
    for index, family in enumerate(("linear", "quadratic", "geometric", "cosine", "sigmoid", "karras")):
        gammas = tuple(inference_gammas(family, 10, 1 - 1e-5, default.gammas[-1]))  # type: ignore[arg-type]
        trials.append(make_trial(f"{family}-ddim", gammas, 100.0 * (gain + 0.07 * index), "search"))
    trials.append(
        {**make_trial("half-way", trials[1]["gammas"], 140.0, "search"), "status": "stopped", "num_images": 16}
    )
    lost = {"status": "failed", "distance": None, "objective": None, "error": "<worker> died"}
    trials.append({**make_trial("lost", trials[1]["gammas"], 0.0, "search"), **lost})
    again = [make_trial("linear-ddim", trials[1]["gammas"], 83.0 if confirmed else 104.0, "search"), trials[0]]
    report = {
        "format": "sr3-search",
        "format_version": 3,
        "stage": stage,
        "num_steps": 10,
        "label": label,
        "is_fid": is_fid,
        "feature_network": "seeded",
        "split": "validation",
        "num_images": 96,
        "best": "linear-ddim",
        "default": "trained-respaced",
        "trials": trials,
        "confirmation": {
            "split": "test", "num_images": 64, "label": label, "trials": again, "gains": [
                {"name": "linear-ddim", "default": "trained-respaced", "value": 17.0 if confirmed else -4.0,
                 "low": 5.0 if confirmed else -9.0, "high": 29.0 if confirmed else 1.0, "level": 0.95, "num_seeds": 3,
                 "second_opinion": None}
            ]
        },
        "front": [],
        "published": ["linear-ddim" if confirmed else "trained-respaced"],
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


def make_trial(name: str, gammas: Any, distance: float, origin: str) -> dict[str, Any]:
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
