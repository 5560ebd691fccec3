"""Pictures that are being upscaled for the page: one after another, in the background, in memory alone."""

import hashlib
import io
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from queue import Queue
from typing import TYPE_CHECKING

import numpy as np

from pipelines.images.decoding import DecodedPhoto
from pipelines.sampling.photo_upscaler import decode_limited, upscale_alpha, upscaled_strips
from pipelines.sampling.photo_writer import PhotoForm, form_of, write_photo
from pipelines.settings.upscale import UpscaleConfig
from sr3core.errors import ConfigError

if TYPE_CHECKING:
    from sr3core.upscaling.stage import Stage
    from sr3core.upscaling.tiles import TileProgress

MOST_KEPT = 8
"""Pictures whose samples are kept; the oldest that is finished goes first."""
MOST_WAITING = 4

LoadStages = Callable[[str | None], "list[Stage]"]
"""From a choice of a schedule, as `sr3 upscale --schedule` takes it, to the cascade with it."""


class State(StrEnum):
    """What has become of a picture."""

    WAITING = "waiting"
    WORKING = "working"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class BusyError(Exception):
    """Too many pictures are waiting."""


class _CancelledError(Exception):
    """Nobody wants the picture any more."""


@dataclass(slots=True)
class Enlargement:
    """A picture, and as many samples of it as are finished."""

    photo: DecodedPhoto
    digest: str
    """sha256 of the picture's file."""
    form: PhotoForm
    """Of the samples."""
    schedule: str | None
    seeds: tuple[int, ...]
    """One for each sample."""
    identifier: str = field(default_factory=lambda: secrets.token_urlsafe(12))
    """Cannot be guessed: who has it may see the picture."""
    state: State = State.WAITING
    error: str = ""
    fraction: float = 0.0
    """Denoising steps finished, of all samples."""
    begun: float = 0.0
    """Clock of time.monotonic()."""
    samples: list[bytes] = field(default_factory=list[bytes])
    """PNG files."""

    @property
    def seconds_left(self) -> float | None:
        """By the time that the steps before took; None before the first."""
        if self.state is not State.WORKING or not self.fraction:
            return None
        return (time.monotonic() - self.begun) * (1 - self.fraction) / self.fraction


class Enlargements:
    """Takes pictures, and upscales one at a time in a thread of its own."""

    def __init__(self, load: LoadStages, max_megapixels: float) -> None:
        self._load, self._config = load, UpscaleConfig(max_megapixels=max_megapixels)
        self._queue: Queue[Enlargement | None] = Queue()
        self._kept: OrderedDict[str, Enlargement] = OrderedDict()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Cancel what is left, and end the thread."""
        with self._lock:
            for each in self._kept.values():
                _cancel(each)
        self._queue.put(None)
        self._thread.join()

    def add(self, data: bytes, schedule: str | None, seed: int, num_samples: int) -> Enlargement:
        """Begin to upscale a picture's file.

        Args:
            data: the file.
            schedule: as `sr3 upscale --schedule`; None for the model's own.
            seed: of the first sample; the next ones take the next seeds. A sample is what `sr3 upscale --seed` makes.
            num_samples: how many.

        Raises:
            DecodeError: it is no picture, or its output would be too large.
            ConfigError: the model has no such schedule.
            BusyError: too many are waiting.
        """
        from sr3core.upscaling.stage import output_size

        models = [stage.model for stage in self._load(schedule)]
        photo = decode_limited(data, self._config, models)
        form = form_of(photo, output_size(models, *photo.pixels.shape[:2]), "png")
        seeds = tuple(range(seed, seed + num_samples))
        found = Enlargement(photo, hashlib.sha256(data).hexdigest(), form, schedule, seeds)
        with self._lock:
            if sum(each.state is State.WAITING for each in self._kept.values()) >= MOST_WAITING:
                raise BusyError
            self._kept[found.identifier] = found
            self._forget()
        self._queue.put(found)
        return found

    def find(self, identifier: str) -> Enlargement | None:
        """The picture of an identifier, unless it was forgotten."""
        return self._kept.get(identifier)

    def cancel(self, identifier: str) -> None:
        """Stop working at a picture, at its next denoising step."""
        with self._lock:
            if found := self._kept.get(identifier):
                _cancel(found)

    def num_before(self, one: Enlargement) -> int:
        """Pictures that are worked at before one that waits."""
        before = 0
        for each in list(self._kept.values()):
            if each is one:
                break
            before += each.state in (State.WAITING, State.WORKING)
        return before

    def _forget(self) -> None:
        ended = [key for key, each in self._kept.items() if each.state not in (State.WAITING, State.WORKING)]
        for key in ended[: max(0, len(self._kept) - MOST_KEPT)]:
            del self._kept[key]

    def _work(self) -> None:
        while (one := self._queue.get()) is not None:
            with self._lock:
                if one.state is not State.WAITING:
                    continue
                one.state, one.begun = State.WORKING, time.monotonic()
            try:
                self._upscale(one)
                one.state = State.DONE
            except _CancelledError:
                one.samples.clear()
            except (MemoryError, RuntimeError, ConfigError) as error:  # torch's own for memory is a RuntimeError
                one.error, one.state = f"{error}" or "It does not fit into memory.", State.FAILED

    def _upscale(self, one: Enlargement) -> None:
        stages = self._load(one.schedule)
        for number, seed in enumerate(one.seeds):

            def tell(progress: "TileProgress", number: int = number) -> None:
                if one.state is State.CANCELLED:
                    raise _CancelledError
                one.fraction = (number + progress.steps_done / progress.num_steps) / len(one.seeds)

            config = replace(self._config, seed=seed)
            strips = upscaled_strips(stages, one.photo, one.form, config, one.digest, tell)
            one.samples.append(_png(one.form, strips))


def _cancel(one: Enlargement) -> None:
    if one.state in (State.WAITING, State.WORKING):
        one.state = State.CANCELLED


def interpolated(one: Enlargement) -> bytes:
    """The picture enlarged by bicubic interpolation to the samples' size, as PNG: what the page compares with."""
    from sr3core.images.pixels import to_float, to_uint8
    from sr3core.images.resize import upsample_bicubic

    pixels = to_uint8(upsample_bicubic(to_float(one.photo.pixels[None]), one.form.size).clamp(-1, 1))[0]
    alpha = None if one.photo.alpha is None else upscale_alpha(one.photo.alpha, one.form.size, 0, one.form.size[0])
    return _png(one.form, [one.form.convert(pixels, alpha)])


def _png(form: PhotoForm, strips: Iterable[np.ndarray]) -> bytes:
    file = io.BytesIO()
    write_photo(file, form, strips, "png", None)
    return file.getvalue()
