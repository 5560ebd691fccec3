"""Upscaling on Ray Data: people's photos, and held-out images for evaluation, through every method of a run."""

import json
import logging
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.config import EvaluateConfig
from pipelines.decode import decode_image
from pipelines.ingest import load_split
from pipelines.memory import keep_freed_memory
from pipelines.runs import Run, StageRun, local_path, open_run, write_atomic
from sr3core.config import fingerprint_of, from_dict, to_dict
from sr3core.errors import ConfigError, DataError

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)

MAX_OUTPUT_PIXELS = 4_000_000
"""Largest output computed in one piece: its activations need about 2 GB."""

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"})


@dataclass(frozen=True, slots=True)
class UpscaleResult:
    """What became of one photo."""

    source: str
    output: str | None
    error: str | None


class PhotoUpscaler:
    """A Ray Data actor that holds a run's cascade and upscales one photo after another."""

    def __init__(self, run: str, schedule: str | None, seed: int, threads: int) -> None:
        import torch

        keep_freed_memory()
        torch.set_num_threads(threads)
        self._stages = [stage.load(schedule) for stage in open_run(run).cascade()]
        self._seed = seed

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """{source, output} -> {source, output, error}; the output is committed or not there."""
        try:
            self._upscale(Path(row["source"]), Path(row["output"]))
        except (DataError, OSError) as error:
            return {**row, "error": str(error)}
        return {**row, "error": ""}

    def _upscale(self, source: Path, output: Path) -> None:
        from sr3core.cascade import run_cascade
        from sr3core.images import to_float, to_uint8
        from sr3core.randomness import derive_seed

        image = decode_image(source.read_bytes()).pixels
        magnification = int(np.prod([stage.model.magnification for stage in self._stages]))
        pixels = image.shape[0] * image.shape[1] * magnification**2
        if pixels > MAX_OUTPUT_PIXELS:
            raise DataError(
                f"{source}: {image.shape[1]}x{image.shape[0]} upscaled {magnification} times is {pixels / 1e6:.1f}"
                f" megapixels, more than the {MAX_OUTPUT_PIXELS / 1e6:.0f} that fit in one piece; shrink or crop it"
            )
        seed = derive_seed(self._seed, "photo", source.name)
        save_png(to_uint8(run_cascade(self._stages, to_float(image[None]), [seed]))[0], output)


def upscale_photos(
    run: str, images: Sequence[str], out: str, schedule: str | None, seed: int, num_actors: int = 1
) -> list[UpscaleResult]:
    """Upscale photos of any size and format through a run's cascade to PNGs named like them in `out`.

    Needs a running Ray. What `out` already holds is not done again.

    Raises:
        ConfigError: the run holds no SR3 stage.
        DataError: nothing to upscale, or two images of one name.
    """
    import ray

    opened = open_run(run)
    end_to_end(opened)
    for stage in opened.cascade():  # told before any actor starts
        stage.check()
        stage.schedule(schedule)
    folder = local_path(out)
    folder.mkdir(parents=True, exist_ok=True)
    sources = find_images(images)
    rows = [{"source": str(source), "output": str(folder / f"{source.stem}.png")} for source in sources]
    todo = [row for row in rows if not Path(row["output"]).exists()]
    errors = {row["source"]: "" for row in rows}
    if todo:
        threads = max(1, int(ray.cluster_resources().get("CPU", 1)) // num_actors)
        rows_done: Any = ray.data.from_items(todo, override_num_blocks=len(todo))
        rows_done = rows_done.map(
            PhotoUpscaler,
            fn_constructor_args=(str(opened.path), schedule, seed, threads),
            compute=ray.data.ActorPoolStrategy(size=num_actors),
            num_cpus=threads,
        )
        for count, row in enumerate(rows_done.iter_rows(), 1):
            errors[row["source"]] = row["error"]
            log.info("%d/%d %s", count, len(todo), row["error"] or row["output"])
    return [
        UpscaleResult(row["source"], None if errors[row["source"]] else row["output"], errors[row["source"]] or None)
        for row in rows
    ]


def find_images(paths: Iterable[str]) -> list[Path]:
    """Files as named, and the image files of folders, sorted.

    Raises:
        DataError: a path does not exist, nothing was found, or two images would get one output name.
    """
    found: list[Path] = []
    for text in paths:
        path = local_path(text)
        if path.is_dir():
            found += sorted(file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)
        elif path.is_file():
            found.append(path)
        else:
            raise DataError(f"{text}: no such file or folder")
    if not found:
        raise DataError(f"{', '.join(paths)}: no image found; known endings are {', '.join(sorted(IMAGE_SUFFIXES))}")
    names: dict[str, Path] = {}
    for path in found:
        if path.stem in names and names[path.stem] != path:
            raise DataError(f"{names[path.stem]} and {path} would both become {path.stem}.png; rename one")
        names[path.stem] = path
    return list(names.values())


def save_png(image: np.ndarray, path: Path) -> None:
    """Write uint8 (H, W, 3) as PNG, under a temporary name first."""
    from PIL import Image

    buffer = BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(buffer.getvalue())
    temporary.replace(path)


class SplitUpscaler:
    """A Ray Data actor that applies every method of a run to held-out low-resolution images and saves the outputs."""

    def __init__(self, run: str, config: dict[str, Any], folder: str, device: str) -> None:
        import torch

        keep_freed_memory()
        torch.set_num_threads(1)
        opened, wanted = open_run(run), from_dict(EvaluateConfig, config)
        self._seed, self._folder, self._device = wanted.seed, Path(folder), device
        fast = wanted.inference, device
        self._cascade = [stage.load(wanted.schedule, *fast) for stage in opened.cascade()]
        self._regressions = {stage.name: stage.load(None, *fast) for stage in comparable_regressions(opened)}

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """{keys (B,), low (B, h, w, 3)} -> {keys}; writes <method>/<key>.png for every method."""
        from sr3core.images import to_float, to_uint8

        low = to_float(np.ascontiguousarray(row["low"])).to(self._device)
        for method, images in self._apply(low, [str(key) for key in row["keys"]]).items():
            for key, image in zip(row["keys"], to_uint8(images.cpu()), strict=True):
                save_png(image, self._folder / method / f"{key}.png")
        return {"keys": row["keys"]}

    def _apply(self, low: "Tensor", keys: Sequence[str]) -> dict[str, "Tensor"]:
        from sr3core.cascade import run_cascade, upscale
        from sr3core.randomness import derive_seed
        from sr3core.resize import upsample_bicubic

        seeds = [derive_seed(self._seed, "held-out", key) for key in keys]
        outputs = {"bicubic": upsample_bicubic(low, self._cascade[-1].model.high_size)}
        for name, stage in self._regressions.items():
            outputs[name] = upscale(stage, low, seeds)
        return {**outputs, "sr3": run_cascade(self._cascade, low, seeds)}


def comparable_regressions(run: Run) -> list[StageRun]:
    """The regression baselines that map the cascade's first size to its last, as a comparison needs."""
    return [stage for stage in run.regressions() if stage.config.data_stage == end_to_end(run)]


def end_to_end(run: Run) -> str:
    """Name of the prepared stage from the cascade's first size to its last.

    Raises:
        ConfigError: the run has no SR3 stage, or its stages do not follow one another.
    """
    cascade = [stage.config.model for stage in run.cascade()]
    if not cascade:
        raise ConfigError(f"{run.path} has no SR3 stage to upscale with")
    for before, after in pairwise(cascade):
        if before.high_size != after.low_size:
            raise ConfigError(
                f"{run.path}: a stage ends at {before.high_size} pixels and the next starts at {after.low_size};"
                " a cascade needs them equal"
            )
    return f"{cascade[0].low_size}-{cascade[-1].high_size}"


@dataclass(frozen=True, slots=True)
class Samples:
    """Held-out images and what every method of a run made of them: RUN/samples/<method>/<key>.png."""

    folder: Path
    split: str
    keys: tuple[str, ...]
    methods: tuple[str, ...]
    schedules: dict[str, dict[str, Any]]
    """Name and number of steps of each SR3 stage's schedule."""
    seed: int
    fingerprint: str
    """Of the checkpoints, schedules, seed and images that they come from."""

    def read(self, method: str) -> list[np.ndarray]:
        """A method's images, or those of "low" and "reference", (H, W, 3) uint8 in the keys' order."""
        return [decode_image((self.folder / method / f"{key}.png").read_bytes()).pixels for key in self.keys]


def upscale_split(run: str, config: EvaluateConfig) -> Samples:
    """Apply every method of a run to held-out images and keep their outputs in RUN/samples. Needs a running Ray.

    What is there already from the same checkpoints, schedules, seed and images is used again.

    Raises:
        DataError: the prepared data lack the cascade's end-to-end stage, or the split is empty.
    """
    import ray

    opened = open_run(run)
    images = load_split(opened.data, end_to_end(opened), config.split, config.limit)
    if not images.keys:
        raise DataError(f"{opened.data}/{end_to_end(opened)} holds no {config.split} images: prepare more")
    stages = (*opened.cascade(), *comparable_regressions(opened))
    for stage in stages:
        stage.check()
    schedules = {stage.name: stage.schedule(config.schedule) for stage in opened.cascade()}
    checkpoints = {stage.name: stage.newest_checkpoint().state["sha256"] for stage in stages}
    gammas = {name: asdict(s) for name, s in schedules.items() if s}
    samples = Samples(
        folder=opened.path / "samples",
        split=config.split,
        keys=images.keys,
        methods=("bicubic", *(stage.name for stage in comparable_regressions(opened)), "sr3"),
        schedules={
            name: {"name": s.name, "num_steps": s.num_steps, "num_evaluations": s.num_evaluations}
            for name, s in schedules.items()
            if s
        },
        seed=config.seed,
        fingerprint=fingerprint_of(
            [checkpoints, gammas, config.seed, config.split, images.keys, config.inference.precision]
        ),
    )
    content = {"fingerprint": samples.fingerprint}
    marker = samples.folder / "samples.json"
    if marker.is_file() and json.loads(marker.read_text()) == content:
        log.info("samples: %s is up to date", samples.folder)
        return samples
    shutil.rmtree(samples.folder, ignore_errors=True)
    for method, pictures in (("low", images.low), ("reference", images.high)):
        for key, picture in zip(images.keys, pictures, strict=True):
            save_png(picture, samples.folder / method / f"{key}.png")
    size, gpus = 16, min(1.0, ray.cluster_resources().get("GPU", 0.0) / config.num_actors)
    starts = range(0, len(images.keys), size)
    rows = [{"keys": np.array(images.keys[i : i + size]), "low": images.low[i : i + size]} for i in starts]
    dataset: Any = ray.data.from_items(rows, override_num_blocks=len(rows))
    dataset = dataset.map(
        SplitUpscaler,
        fn_constructor_args=(opened.location, to_dict(config), str(samples.folder), "cuda" if gpus else "cpu"),
        compute=ray.data.ActorPoolStrategy(size=config.num_actors),
        num_cpus=1,
        num_gpus=gpus or None,
    )
    count = 0
    for row in dataset.iter_rows():
        count += len(row["keys"])
        log.info("samples: %d/%d held-out images upscaled", count, len(images.keys))
    write_atomic(marker, json.dumps(content))
    return samples
