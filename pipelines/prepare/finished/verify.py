"""Checks prepared shards: all planned images are accounted for, and all bytes match indices and checksums."""

import hashlib
import tarfile
from collections import Counter
from dataclasses import dataclass
from shlex import quote
from typing import IO

from pipelines.prepare.fields.plan import FIELD_PLAN, planned_stages
from pipelines.prepare.plan.shard_plan import PLAN, PlannedShard, load_plan
from pipelines.shards.manifest import MANIFEST, ShardEntry, ShardIndex, load_index, load_manifest
from pipelines.storage.uris import exists, join, list_files, name_of, open_seekable
from sr3core.errors import DataError, StorageError

_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem with prepared shards."""

    path: str
    """File or folder that has the problem."""
    problem: str
    """What is wrong, in words."""


def verify(directory: str) -> list[Problem]:
    """Check a stage's folder, or that of a whole preparation, and list every problem.

    Reads every shard once. To repair a shard, delete it and its index, and run `sr3 prepare` again.

    Raises:
        DataError: nothing was prepared in the folder.
    """
    if exists(join(directory, PLAN)):
        try:
            plan, stages = load_plan(directory)
        except DataError as error:
            return [Problem(join(directory, PLAN), str(error))]
        problems = []
        for stage in stages:
            problems += _verify_stage(join(directory, stage), plan.shards)
        return problems
    if exists(join(directory, FIELD_PLAN)):
        return [problem for stage in planned_stages(directory) for problem in _verify_stage(join(directory, stage), ())]
    if exists(join(directory, MANIFEST)):
        return _verify_stage(directory, ())
    remedy = f"run `sr3 prepare --out {quote(directory)}`"
    raise DataError(f"{directory} holds neither {PLAN} nor {MANIFEST}: nothing was prepared there; {remedy}")


def _verify_stage(directory: str, planned: tuple[PlannedShard, ...]) -> list[Problem]:
    try:
        manifest = load_manifest(directory)
    except (DataError, StorageError) as error:
        return [Problem(join(directory, MANIFEST), str(error))]
    problems, keys = [], Counter()
    entries = {entry.name: entry for shards in manifest.splits.values() for entry in shards}
    for name, entry in entries.items():
        try:
            index = load_index(directory, name)
            keys.update(index.keys)
            problems += _verify_shard(directory, entry, index)
        except (DataError, StorageError) as error:
            problems.append(Problem(join(directory, name), str(error)))
    problems += [Problem(directory, f"key {key} occurs {count} times") for key, count in keys.items() if count > 1]
    for shard in planned:
        problems += _verify_planned(directory, shard, entries)
    for name, _ in list_files(directory):
        if name.endswith(".tar") and name not in entries:
            problems.append(Problem(join(directory, name), f"not in {MANIFEST}; delete it"))
        elif name.endswith(".tmp"):
            problems.append(Problem(join(directory, name), "left behind by a process that was killed; delete it"))
    return problems


def _verify_planned(directory: str, shard: PlannedShard, entries: dict[str, ShardEntry]) -> list[Problem]:
    """Check that every planned image is in the shard or among its rejects."""
    path = join(directory, shard.name)
    try:
        index = load_index(directory, shard.name)
    except (DataError, StorageError) as error:
        return [] if shard.name in entries else [Problem(path, f"no index: {error}")]
    if index.num_images != shard.num_images:
        found = f"{index.num_images} are in the shard or rejected"
        return [Problem(path, f"{shard.num_images} images were planned, but {found}")]
    if index.keys and shard.name not in entries:
        return [Problem(path, f"{MANIFEST} does not name it")]
    return []


def _verify_shard(directory: str, entry: ShardEntry, index: ShardIndex) -> list[Problem]:
    path = join(directory, entry.name)
    if index.entry != entry:
        return [Problem(path, f"{MANIFEST} and its index disagree: {entry} and {index.entry}")]
    with open_seekable(path) as file:
        reader = _HashingReader(file)
        wrong = _first_wrong_member(reader, index)
        reader.skip_to_end()
    problems = []
    if reader.position != entry.num_bytes:
        problems.append(
            Problem(path, f"{reader.position} bytes, expected {entry.num_bytes}; the shard is truncated or has grown")
        )
    elif reader.sha256 != entry.sha256:
        problems.append(Problem(path, "its SHA-256 differs from the manifest's; the shard was changed"))
    if wrong:
        problems.append(Problem(path, wrong))
    return problems


def _first_wrong_member(reader: "_HashingReader", index: ShardIndex) -> str | None:
    """Compare the tar's headers with the index."""
    for key, members in zip(index.keys, index.members, strict=True):
        for name, (offset, size) in sorted(members.items(), key=lambda item: item[1]):
            if offset - tarfile.BLOCKSIZE < reader.position:
                return f"the index has {key}.{name} at byte {offset}, which lies in another member"
            reader.skip(offset - tarfile.BLOCKSIZE - reader.position)
            try:
                header = tarfile.TarInfo.frombuf(reader.read(tarfile.BLOCKSIZE), "utf-8", "surrogateescape")
            except tarfile.HeaderError as error:
                return f"no tar header for {key}.{name} before byte {offset}: {error}"
            if (header.name, header.size) != (f"{key}.{name}", size):
                found = f"{header.name} of {header.size} bytes"
                return f"the index has {key}.{name} of {size} bytes at {offset}, the tar has {found}"
            reader.skip(size)
    return None


class _HashingReader:
    """Reads a file from beginning to end and hashes everything that it passes."""

    def __init__(self, file: IO[bytes]) -> None:
        self.position = 0
        self._file = file
        self._hash = hashlib.sha256()

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        self._hash.update(data)
        self.position += len(data)
        return data

    def skip(self, size: int) -> None:
        while size > 0 and (data := self.read(min(size, _CHUNK_BYTES))):
            size -= len(data)

    def skip_to_end(self) -> None:
        while self.read(_CHUNK_BYTES):
            pass


def describe(directory: str, problems: list[Problem]) -> str:
    """Describe what `verify` found in lines of text."""
    if not problems:
        return f"{directory}: all shards are present and intact"
    return "\n".join(f"{name_of(problem.path)}: {problem.problem} ({problem.path})" for problem in problems)
