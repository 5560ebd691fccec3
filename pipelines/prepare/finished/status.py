"""The state of a running, interrupted or finished preparation, judged by its folder alone."""

import time
from dataclasses import dataclass

from pipelines.prepare.plan.shard_plan import load_plan
from pipelines.prepare.plan.stage_index import count_shards
from pipelines.prepare.writing.progress import PROGRESS
from pipelines.shards.manifest import MANIFEST
from pipelines.storage.uris import exists, join, read_bytes
from pipelines.storage.versions import list_versions
from sr3core import strict_json

_STALE_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class StageStatus:
    """State of one stage of a preparation."""

    stage: str
    """Its name."""
    complete: bool
    """Whether its manifest and all its shards exist."""
    num_shards: int
    """Shards planned."""
    shards_done: int
    """Finished shards, including empty ones."""
    num_samples: int
    """Samples in them."""
    num_rejects: int
    """Images that were planned for them but rejected."""


@dataclass(frozen=True, slots=True)
class PrepareStatus:
    """State of a preparation."""

    out: str
    """Its folder."""
    num_images: int
    """Images in the source."""
    num_ignored: int
    """Files in the source that are not images, judging by their names."""
    layout: str
    """Layout by which the source was listed."""
    stages: tuple[StageStatus, ...]
    """Its stages."""
    last_line: str
    """Last progress line of the current or last run; empty before the first shard."""
    seconds_since: float
    """Age of that line."""

    @property
    def complete(self) -> bool:
        """Whether every stage is complete."""
        return all(stage.complete for stage in self.stages)

    def lines(self) -> list[str]:
        """Describe the status in lines of text."""
        found = [f"{self.out}: {self.num_images} images (layout {self.layout}), {self.num_ignored} other files ignored"]
        for stage in self.stages:
            state = "complete" if stage.complete else "unfinished"
            found.append(
                f"  {stage.stage}: {state}, {stage.shards_done}/{stage.num_shards} shards,"
                f" {stage.num_samples} samples, {stage.num_rejects} rejected"
            )
        if self.last_line and not self.complete:
            stale = self.seconds_since > _STALE_SECONDS
            note = f" ({self.seconds_since:.0f} s ago{'; it seems to have stopped' if stale else ''})"
            found.append("  " + self.last_line + note)
        return found


def prepare_status(directory: str) -> PrepareStatus:
    """Determine the status of a preparation from its folder.

    Raises:
        DataError: nothing was prepared there.
    """
    plan, stages = load_plan(directory)
    planned = [shard.name for shard in plan.shards]
    found = []
    for stage in stages:
        there = list_versions(join(directory, stage))
        shards_done, num_samples, num_rejects = count_shards(directory, stage, planned, there)
        complete = MANIFEST in there and shards_done == len(planned)
        found.append(StageStatus(stage, complete, len(planned), shards_done, num_samples, num_rejects))
    line, written = _last_progress(directory)
    since = max(time.time() - written, 0.0)
    return PrepareStatus(directory, plan.num_images, plan.num_ignored, plan.layout, tuple(found), line, since)


def _last_progress(directory: str) -> tuple[str, float]:
    path = join(directory, PROGRESS)
    if not exists(path):
        return "", 0.0
    try:
        data = strict_json.loads(read_bytes(path))
        return str(data["line"]), float(data["written"])
    except (ValueError, KeyError, TypeError):
        return "", 0.0
