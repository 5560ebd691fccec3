"""Every sampler at several numbers of network evaluations, on one trained stage: a picture and a table.

    python tests/benchmarks/show_samplers.py --run RUN --stage 16-64 --steps 10 25 50 100 --images 64 --out DIR

The schedules are those that one would use without a search (tune/search/proposals/defaults.py): Algorithm 2 and DDIM
on the trained one respaced, the others on their authors' own levels. All see the same images and the same noise.

DIR/samplers.png has a row a sampler and number of evaluations, a column an image (the first few), with the input and
the original on top; DIR/samplers.md the means. DIR/cache.json keeps every finished measurement under the fingerprint of
everything that determined it, so that the same command resumes. Seconds are those of the machine, and of its
other users, at the time.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw

from pipelines.evaluation.measurer import features_of
from pipelines.evaluation.networks import feature_network
from pipelines.ingest.split_reader import SplitImages, load_split
from pipelines.runs.run_folder import StageRun, open_run, write_atomic
from sr3core.config import fingerprint_of, to_dict
from sr3core.diffusion.schedules import InferenceSchedule
from sr3core.features.extractors import FeatureNetwork, distance_label
from sr3core.images.pixels import to_float, to_uint8
from sr3core.images.resize import upsample_bicubic
from sr3core.metrics.fid import frechet_distance_from_features
from sr3core.metrics.psnr import psnr
from sr3core.networks.inference import InferenceNetwork
from sr3core.randomness import derive_seed
from sr3core.upscaling.cascade import upscale
from sr3core.upscaling.stage import Stage
from tune.search.proposals.defaults import defaults

SAMPLERS = ("trained-respaced", "ddim", "dpmpp-2m", "heun-karras")
"""Names of defaults, one an algorithm."""
COLUMNS = 8
"""Images in the picture."""
_CAPTION_WIDTH = 150


def draw(stage: Stage, low: np.ndarray, keys: tuple[str, ...], batch: int) -> np.ndarray:
    """Upscale all images, uint8 (N, H, W, 3)."""
    seeds = [derive_seed(0, "show", key) for key in keys]
    parts = [slice(start, start + batch) for start in range(0, len(keys), batch)]
    return np.concatenate(
        [to_uint8(upscale(stage, to_float(low[p].copy()).to(stage.device), seeds[p]).cpu()) for p in parts]
    )


def identity_of(stage: StageRun, schedule: InferenceSchedule, images: SplitImages, features: str, batch: int) -> str:
    """Of all that decides a measurement."""
    walk = [list(schedule.gammas), to_dict(schedule.sampler)]
    return fingerprint_of([stage.weights.newest().state["sha256"], walk, images.keys, features, batch])


def picture(rows: list[tuple[str, np.ndarray]]) -> Image.Image:
    """Rows of images under one another, each with its caption on the left."""
    height, width = rows[0][1].shape[1:3]
    columns = min(COLUMNS, len(rows[0][1]))
    sheet = Image.new("RGB", (_CAPTION_WIDTH + columns * width, len(rows) * height), "white")
    for index, (caption, images) in enumerate(rows):
        ImageDraw.Draw(sheet).text((4, index * height + height // 2 - 6), caption, "black")
        for column, image in enumerate(images[:columns]):
            sheet.paste(Image.fromarray(image), (_CAPTION_WIDTH + column * width, index * height))
    return sheet


def table(rows: list[dict[str, Any]], label: str) -> str:
    """The measurements as Markdown."""
    lines = [
        f"| sampler | steps | evaluations | PSNR, dB | {label} | seconds an image |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        numbers = f"{row['psnr']:.2f} | {row['distance']:.1f} | {row['seconds']:.3f}"
        lines.append(f"| {row['sampler']} | {row['steps']} | {row['evaluations']} | {numbers} |")
    return "\n".join([*lines, ""])


def judge(
    stage: Stage, images: SplitImages, batch: int, features: FeatureNetwork, references: np.ndarray
) -> tuple[np.ndarray, dict[str, Any]]:
    """The images that a stage's schedule draws, and its row of the table."""
    started = time.perf_counter()
    outputs = draw(stage, images.low, images.keys, batch)
    seconds = (time.perf_counter() - started) / len(outputs)
    schedule = stage.schedule
    assert schedule is not None
    return outputs, {
        "sampler": schedule.sampler.algorithm,
        "steps": schedule.num_steps,
        "evaluations": schedule.num_evaluations,
        "psnr": float(psnr(outputs, images.high).mean()),
        "distance": float(frechet_distance_from_features(features_of(features, list(outputs)), references)),
        "seconds": seconds,
    }


def main() -> None:
    """Measure what the cache lacks, then draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", required=True)
    parser.add_argument("--stage", required=True)
    parser.add_argument("--steps", type=int, nargs="+", default=[10, 25, 50, 100], help="network evaluations")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--split", default="test")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    stage = open_run(options.run).stage(options.stage)
    stage.weights.check()
    images = load_split(stage.data, stage.config.data_stage, options.split, options.images)
    network = InferenceNetwork(stage.weights.load(), options.device)
    features = feature_network()
    references, label = features_of(features, list(images.high)), distance_label(features, len(images.keys))
    bicubic = to_uint8(upsample_bicubic(to_float(images.low.copy()), stage.model.high_size).clamp(-1, 1))
    cache_file = options.out / "cache.json"
    cache = json.loads(cache_file.read_text()) if cache_file.is_file() else {}
    schedules = [{s.name: s for s in defaults(stage.model.noise_schedule, steps)} for steps in options.steps]
    rows, drawn = [], [("input, bicubic", bicubic), ("original", images.high)]
    for schedule in (by_name[name] for name in SAMPLERS for by_name in schedules):
        identity = identity_of(stage, schedule, images, features.name, options.batch)
        outputs_file = options.out / f"{identity}.npy"
        if identity not in cache:
            walked = Stage(stage.name, stage.model, network, schedule)
            outputs, cache[identity] = judge(walked, images, options.batch, features, references)
            options.out.mkdir(parents=True, exist_ok=True)
            np.save(outputs_file, outputs[:COLUMNS])
            write_atomic(cache_file, json.dumps(cache, indent=1))
        row = cache[identity]
        rows.append(row)
        drawn.append((f"{row['sampler']}, {row['evaluations']} evals", np.load(outputs_file)))
        print(json.dumps(row), flush=True)
    picture(drawn).save(options.out / "samplers.png")
    write_atomic(options.out / "samplers.md", table(rows, label))
    print(table(rows, label))


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
