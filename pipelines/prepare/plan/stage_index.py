"""What a stage's folder holds, known by one LIST and one table instead of a request for every shard.

OUT/index-STAGE.parquet has the summaries of finished shards with the version of the index that each was taken from.
It is a memory, not a source: a summary whose index has changed, or is gone, does not count, and what the table lacks is
read from the indices. A table that is lost or damaged costs time alone.
"""

from collections.abc import Iterable, Mapping
from functools import partial

from pipelines.prepare.plan.shard_plan import Plan
from pipelines.runtime.threads import map_in_threads
from pipelines.settings.stages import StageSpec
from pipelines.shards.manifest import index_path, load_index
from pipelines.shards.summaries import BRIEF, ShardSummary, decode_table, encode_table, read_columns, summarise
from pipelines.storage.uris import delete, join, open_seekable, read_bytes, write_atomic
from pipelines.storage.versions import list_versions
from sr3core.errors import DataError, MissingError, StorageError

_SAVE_EVERY = 256
"""Shards that a killed run may have summarised in vain, as long as they are the larger part."""
_SAVE_SHARE = 8
"""The share of the shards, 1/8, that it may have later: what is written in all is a few times the last table."""


class StageIndex:
    """The finished shards of a stage.

    Attributes:
        summaries: shard -> its summary, of each planned shard whose index is whole.
    """

    def __init__(self, out: str, stage: str, shards: Iterable[str]) -> None:
        """Find out what is there.

        Args:
            out: the preparation's folder.
            stage: name of the stage.
            shards: names of the planned shards.

        Raises:
            StorageError: the folder or an index cannot be read, perhaps only at the moment.
        """
        self._out, self._stage = out, stage
        self.directory = join(out, stage)
        there = list_versions(self.directory)
        self._tars = {name for name in there if name.endswith(".tar")}
        versions = {name: version for name in shards if (version := there.get(index_name(name)))}
        known = _read_table(out, stage) if versions else {}
        self.summaries = {name: known[name][1] for name in versions if known.get(name, ("",))[0] == versions[name]}
        unknown = [name for name in versions if name not in self.summaries]
        found = map_in_threads(partial(_summary_of, self.directory), unknown)
        self.summaries |= {name: summary for name, summary in zip(unknown, found, strict=True) if summary is not None}
        self._num_unsaved = len(unknown)

    def add(self, summary: ShardSummary) -> None:
        """Note a shard that has just been written."""
        self.summaries[summary.shard] = summary
        self._tars.add(summary.shard)
        self._num_unsaved += 1
        if self._num_unsaved >= max(_SAVE_EVERY, len(self.summaries) // _SAVE_SHARE):
            self.save()

    def discard(self, shard: str) -> None:
        """Delete a shard's index: the shard is unfinished."""
        delete(index_path(self.directory, shard))
        self.summaries.pop(shard, None)

    def is_finished(self, shard: str, fingerprint: str, plan: str) -> bool:
        """Whether a shard is there whole, made by the configuration and the plan of these fingerprints."""
        found = self.summaries.get(shard)
        if found is None or (found.fingerprint, found.plan) != (fingerprint, plan):
            return False
        return not found.num_samples or shard in self._tars

    def save(self) -> None:
        """Write the table, if it lacks a summary."""
        if not self._num_unsaved:
            return
        there = list_versions(self.directory)
        versions = {name: there[index_name(name)] for name in self.summaries if index_name(name) in there}
        kept = [self.summaries[name] for name in versions]
        write_atomic(_table_path(self._out, self._stage), encode_table(kept, versions))
        self._num_unsaved = 0


def open_stages(out: str, plan: Plan, stages: Iterable[StageSpec]) -> dict[str, StageIndex]:
    """Stage -> what of a plan's shards its folder holds."""
    names = [shard.name for shard in plan.shards]
    return {stage.name: StageIndex(out, stage.name, names) for stage in stages}


def count_shards(out: str, stage: str, shards: Iterable[str], there: Mapping[str, str]) -> tuple[int, int, int]:
    """Count finished shards, their samples and their rejects, with as few bytes as that takes.

    Args:
        out: the preparation's folder.
        stage: name of the stage.
        shards: names of the planned shards.
        there: file -> version in the stage's folder.
    """
    counts = _read_counts(out, stage)
    found, unknown = [], []
    for name in shards:
        version = there.get(index_name(name))
        if version is not None and counts.get(name, ("",))[0] == version:
            found.append(counts[name][1:])
        elif version is not None:
            unknown.append(name)
    for summary in map_in_threads(partial(_summary_or_none, join(out, stage)), unknown):
        if summary is not None:
            found.append((summary.num_samples, sum(summary.num_rejects.values())))
    return len(found), sum(samples for samples, _ in found), sum(rejects for _, rejects in found)


def index_name(shard: str) -> str:
    """File name of a shard's index."""
    return shard.removesuffix(".tar") + ".index.json"


def _table_path(out: str, stage: str) -> str:
    return join(out, f"index-{stage}.parquet")


def _read_table(out: str, stage: str) -> dict[str, tuple[str, ShardSummary]]:
    try:
        return decode_table(read_bytes(_table_path(out, stage)))
    except (MissingError, ValueError):
        return {}


def _read_counts(out: str, stage: str) -> dict[str, tuple[str, int, int]]:
    try:
        with open_seekable(_table_path(out, stage)) as file:
            rows = read_columns(file, BRIEF)
    except (MissingError, ValueError):
        return {}
    return {row["shard"]: (row["version"], row["num_samples"], row["num_rejected"]) for row in rows}


def _summary_of(directory: str, shard: str) -> ShardSummary | None:
    """The summary of a shard's index; None if it is damaged: such a shard is written again."""
    try:
        return summarise(load_index(directory, shard))
    except DataError:
        return None


def _summary_or_none(directory: str, shard: str) -> ShardSummary | None:
    """For `sr3 status`, which says what can be read."""
    try:
        return _summary_of(directory, shard)
    except StorageError:
        return None
