"""The actor that upscales photos: read, decode, tiles through a cascade, encode, commit."""

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.images import colour
from pipelines.images.decoding import DecodedPhoto, decode_photo
from pipelines.images.file_names import MAX_FILE_BYTES
from pipelines.images.rejects import DecodeError, RejectReason
from pipelines.runs.run_folder import Run, open_run
from pipelines.runs.stage_run import check_input_noise, check_makes_images
from pipelines.runtime.allocator import keep_freed_memory
from pipelines.sampling.photo_finder import Photo
from pipelines.sampling.photo_writer import PhotoForm, form_of, write_photo
from pipelines.sampling.upscale_records import changes_since, record_of, save_record
from pipelines.settings.upscale import UpscaleConfig
from pipelines.storage.local_files import discard, local_errors
from pipelines.storage.uris import commit, delete_leftovers, join, read_bytes, size_of, temporary_path
from sr3core import strict_json
from sr3core.config import fingerprint_of, from_dict, scientific
from sr3core.errors import StorageError
from sr3core.randomness import NOISE_VERSION

if TYPE_CHECKING:
    from sr3core.hyperparameters import ModelConfig
    from sr3core.upscaling.stage import Stage
    from sr3core.upscaling.tiles import TileProgress


@dataclass(frozen=True, slots=True)
class PhotoReport:
    """The result for one photo."""

    source: str
    """Its URI."""
    output: str
    """URI of its output, whether it exists or not."""
    made: bool = False
    """Whether this run made the output; if False and there is no reason, it existed already."""
    reason: RejectReason | None = None
    """Why there is no output; None if there is one."""
    detail: str = ""
    """The details in words."""
    notes: tuple[str, ...] = ()
    """What was converted, or could not be kept."""


class PhotoUpscaler:
    """An actor that holds a run's cascade and upscales one photo after another."""

    def __init__(self, run: str, out: str, config: dict[str, Any], threads: int, device: str) -> None:
        keep_freed_memory()
        self._run, self._out, self._config = open_run(run), out, from_dict(UpscaleConfig, config)
        self._threads, self._device = threads, device
        self._settings = settings_of(self._run, self._config)
        self._stages: list[Stage] = []  # loaded when the first photo needs them
        self._progress: TileProgress | None = None

    def progress(self) -> tuple[int, int, float]:
        """Tiles done, tiles in all and fraction of the steps done, of the current photo."""
        known = self._progress
        return (known.tiles_done, known.num_tiles, known.steps_done / known.num_steps) if known else (0, 0, 0.0)

    def work(self, task: tuple[Photo, str]) -> PhotoReport:
        """Upscale a photo to OUT/name; the output is written atomically."""
        photo, name = task
        report = PhotoReport(photo.uri, join(self._out, name))
        try:
            made, notes = self._make(photo, name)
        except DecodeError as error:
            return PhotoReport(report.source, report.output, reason=error.reason, detail=error.detail)
        except (MemoryError, RuntimeError) as error:
            if not isinstance(error, MemoryError) and "alloc" not in str(error).lower():
                raise
            detail = "does not fit into memory; use a smaller --tile or --batch"
            return PhotoReport(report.source, report.output, reason=RejectReason.TOO_LARGE, detail=detail)
        finally:
            self._progress = None
        return PhotoReport(report.source, report.output, made, notes=notes)

    def _make(self, photo: Photo, name: str) -> tuple[bool, tuple[str, ...]]:
        data = read_photo(photo)
        record = record_of(source_of(photo, data), self._settings)
        with _unwritten():
            changes = changes_since(self._out, name, record)
        if changes is None:
            detail = f"{join(self._out, name)} exists, but not from `sr3 upscale`; delete it, or choose another --out"
            raise DecodeError(RejectReason.UNWRITTEN, detail)
        if not changes:
            return False, ()
        from sr3core.upscaling.stage import output_size

        stages = self._load()
        models = [stage.model for stage in stages]
        decoded = decode_limited(data, self._config, models)
        form = form_of(decoded, output_size(models, *decoded.pixels.shape[:2]), self._config.format)
        strips = self._upscale(stages, decoded, form, record["source"]["sha256"])
        with _unwritten():
            self._write(name, form, strips, {**record, "notes": form.notes})
        return True, form.notes

    def _load(self) -> "list[Stage]":
        if not self._stages:
            self._stages = load_cascade(self._run, self._config, self._device)
        return self._stages

    def _upscale(
        self, stages: "list[Stage]", photo: DecodedPhoto, form: PhotoForm, digest: str
    ) -> Iterator[np.ndarray]:
        import torch

        torch.set_num_threads(self._threads)
        yield from upscaled_strips(stages, photo, form, self._config, digest, self._tell)

    def _tell(self, progress: "TileProgress") -> None:
        self._progress = progress

    def _write(self, name: str, form: PhotoForm, strips: Iterator[np.ndarray], record: dict[str, Any]) -> None:
        path = join(self._out, name)
        delete_leftovers(path)
        temporary = temporary_path(path)
        try:
            with open(temporary, "wb") as file:
                write_photo(file, form, strips, self._config.format, self._config.quality)
                file.flush()
                os.fsync(file.fileno())
            output = {"bytes": os.path.getsize(temporary), "width": form.size[1], "height": form.size[0]}
            save_record(self._out, name, record, "writing", output)
            commit(temporary, path)
            save_record(self._out, name, record, "done", output)
        finally:
            discard(temporary)


@contextlib.contextmanager
def _unwritten() -> Iterator[None]:
    """Turn a failure to write into this photo's reason."""
    try:
        with local_errors("its output"):
            yield
    except StorageError as error:
        raise DecodeError(RejectReason.UNWRITTEN, str(error)) from error


def read_photo(photo: Photo) -> bytes:
    """A photo's bytes.

    Raises:
        DecodeError: it cannot be read, with the reason.
    """
    try:
        if (size := size_of(photo.uri)) > MAX_FILE_BYTES:
            raise DecodeError(RejectReason.TOO_LARGE, f"{size} bytes are more than {MAX_FILE_BYTES}")
        return read_bytes(photo.uri)
    except StorageError as error:
        raise DecodeError(RejectReason.UNREADABLE, str(error)) from error


def source_of(photo: Photo, data: bytes) -> dict[str, str]:
    """What the record of an output says about its photo."""
    return {"name": photo.name, "sha256": hashlib.sha256(data).hexdigest()}


def decode_limited(data: bytes, config: UpscaleConfig, models: "Sequence[ModelConfig]") -> DecodedPhoto:
    """Decode a photo whose output stays within max_megapixels.

    Raises:
        DecodeError: it does not, or cannot be decoded.
    """
    magnification = float(prod(model.scale for model in models))
    try:
        return decode_photo(data, int(config.max_megapixels * 1e6 / magnification**2))
    except DecodeError as error:
        if error.reason is not RejectReason.TOO_LARGE:
            raise
        limit = f"upscaled {magnification:g} times it may have {config.max_megapixels:g} megapixels (--max-megapixels)"
        raise DecodeError(error.reason, f"{error.detail}; {limit}") from error


def upscaled_strips(
    stages: "Sequence[Stage]",
    photo: DecodedPhoto,
    form: PhotoForm,
    config: UpscaleConfig,
    digest: str,
    on_progress: "Callable[[TileProgress], None] | None" = None,
) -> Iterator[np.ndarray]:
    """Upscale a photo.

    Args:
        stages: the cascade, on its device.
        photo: what is upscaled.
        form: of the output.
        config: seed and tiles.
        digest: sha256 of the photo's file: the noise depends on it and on the seed.
        on_progress: called after every denoising step of every batch of tiles.

    Yields:
        The output's rows in its form, from the top down: uint8 (rows, W, C).
    """
    from sr3core.images.pixels import to_float, to_uint8
    from sr3core.randomness import derive_seed
    from sr3core.upscaling.tile_grid import Tiling
    from sr3core.upscaling.tiles import run_tiled_cascade

    alpha = photo.alpha
    pixels = photo.pixels if alpha is None else colour.fill_transparent(photo.pixels, alpha)
    tiling = Tiling(config.tile, config.overlap, config.batch)
    low = to_float(pixels[None]).to(stages[0].device)
    for top, strip in run_tiled_cascade(stages, low, derive_seed(config.seed, "photo", digest), tiling, on_progress):
        rows = to_uint8(strip.cpu())[0]
        yield form.convert(rows, None if alpha is None else upscale_alpha(alpha, form.size, top, len(rows)))


def upscale_alpha(alpha: np.ndarray, size: tuple[int, int], top: int, num_rows: int) -> np.ndarray:
    """Rows [top, top + num_rows) of alpha (h, w) upscaled to size by bicubic, clipped: uint8 (num_rows, W)."""
    import torch

    from sr3core.images.resize import upsample_window

    images = torch.tensor(alpha, dtype=torch.float32)[None, None]
    rows = upsample_window(images, size, (top, 0), (num_rows, size[1]))
    return rows[0, 0].round().clamp(0, 255).to(torch.uint8).numpy()


def load_cascade(run: Run, config: UpscaleConfig, device: str) -> "list[Stage]":
    """A run's stages, ready to upscale photos.

    Raises:
        ConfigError: they make fields, take no noise on their input although it is wanted, or have no such schedule.
        CheckpointError: their weights are missing, damaged or of another network.
    """
    check_makes_images(run.cascade())
    check_input_noise(run.cascade(), config.inference)
    return [stage.load(config.schedule, config.inference, device, few_steps=True) for stage in run.cascade()]


def settings_of(run: Run, config: UpscaleConfig) -> dict[str, Any]:
    """What determines an output besides the photo: weights, schedules, seed, tiles and format, as JSON types.

    Raises:
        CheckpointError: a stage is not trained.
    """
    from sr3core.checkpoint import sampling_weights

    stages = {}
    for stage in run.cascade():
        info, schedule = stage.weights.newest(), stage.schedule(config.schedule, few_steps=True)
        assert schedule is not None, "a cascade's stages are SR3's"
        stages[stage.name] = {
            "step": info.step,
            "weights": info.state["sha256"][sampling_weights(info).name],
            "schedule": {
                "name": schedule.name,
                "fingerprint": fingerprint_of([schedule.gammas, scientific(schedule.sampler)]),
            },
            **({} if stage.mean is None else {"mean": stage.mean.fingerprint()}),
        }
    decided = {key: value for key, value in scientific(config).items() if key != "schedule"}
    return strict_json.plain({"stages": stages, "noise_version": NOISE_VERSION, **decided})
