"""Progress of a preparation: its counters, and the file in which `sr3 status` finds it."""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from pipelines.prepare.writing.shard_task import ShardReport
from pipelines.runtime.exported_metrics import Exporter
from pipelines.runtime.progress_display import duration
from pipelines.storage.uris import join, write_atomic
from sr3core import strict_json

PROGRESS = "progress.json"
"""File in a preparation's folder with its last progress line."""

_SAVE_EVERY_SECONDS = 2.0


@dataclass(slots=True)
class PrepareProgress:
    """How far a preparation has come."""

    num_shards: int
    """Shards to write in this run."""
    num_images: int
    """Images planned for these shards."""
    num_shards_before: int = 0
    """Shards that earlier runs have finished."""
    shards_done: int = 0
    """Shards written in this run."""
    images_done: int = 0
    """Images read in this run."""
    num_samples: int = 0
    """Samples written in this run, all stages together."""
    num_rejects: int = 0
    """Images that one stage or more rejected in this run."""
    seconds_of: Counter[str] = field(default_factory=Counter)
    """Time by kind of work ("read", "decode", "resize", "encode", "write"), summed over all workers."""
    started: float = field(default_factory=time.monotonic)
    """Monotonic time of the start."""

    def add(self, report: ShardReport) -> None:
        """Count a finished shard."""
        self.shards_done += 1
        self.images_done += report.num_images
        self.num_samples += report.num_samples
        self.num_rejects += report.num_rejects
        self.seconds_of.update(report.seconds)

    @property
    def seconds(self) -> float:
        """Time since the start."""
        return time.monotonic() - self.started

    @property
    def share(self) -> float:
        """Fraction of this run's shards that are written; 1 if all are."""
        return self.shards_done / self.num_shards if self.num_shards else 1.0

    @property
    def images_per_second(self) -> float:
        """Images read per second since the start."""
        return self.images_done / max(self.seconds, 1e-9)

    def line(self) -> str:
        """The progress in one line."""
        left = (self.num_images - self.images_done) / max(self.images_per_second, 1e-9)
        earlier = f" (+{self.num_shards_before} before)" if self.num_shards_before else ""
        return (
            f"prepare: {duration(left) if self.images_done else '?'} left, {self.images_done}/{self.num_images} images,"
            f" {self.num_rejects} rejected, {self.shards_done}/{self.num_shards} shards{earlier},"
            f" {self.images_per_second:.1f} images/s"
        )


def save_progress(out: str) -> Callable[[PrepareProgress], None]:
    """Return a callback that saves the progress in a preparation's folder, at most every two seconds and at the end."""
    last = [-_SAVE_EVERY_SECONDS]

    def save(progress: PrepareProgress) -> None:
        if time.monotonic() - last[0] >= _SAVE_EVERY_SECONDS or progress.shards_done == progress.num_shards:
            last[0] = time.monotonic()
            data = {"line": progress.line(), "written": time.time()}
            write_atomic(join(out, PROGRESS), strict_json.dumps(data).encode())

    return save


def export_progress(out: str) -> Callable[[PrepareProgress], None]:
    """Return a callback that exports the progress to Prometheus, through Ray."""
    exporter = Exporter({"out": out.rstrip("/").rpartition("/")[2].partition("?")[0]})

    def export(progress: PrepareProgress) -> None:
        exporter.set(
            prepare_images=progress.images_done,
            prepare_images_planned=progress.num_images,
            prepare_rejects=progress.num_rejects,
            prepare_images_per_second=progress.images_per_second,
        )

    return export
