"""Runs in a bucket: the bucket is the source of truth; code reads and writes a working copy on each machine.

A working copy holds all of a run's small files, and the weights of only those checkpoints that were requested. Files
are uploaded whole; a checkpoint's state.json is uploaded last and deleted first, so that a reader sees a complete
checkpoint or none, as on a disk.

For each file that exists on both sides, .sync records the bucket's version and the copy's modification time. So a file
that this machine has changed since is never overwritten by the bucket's, by any process, and no clocks are compared.
"""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.storage.buckets import s3
from pipelines.storage.leases.folder_lease import LEASES
from pipelines.storage.uris import absolute, delete, join, list_files, write_atomic
from sr3core.errors import CheckpointError

if TYPE_CHECKING:  # it imports torch
    from sr3core.checkpoint import CheckpointInfo

WORKING_COPIES = Path(os.environ.get("SR3_WORKING_COPIES", Path.home() / ".cache" / "sr3" / "runs"))
"""Folder of working copies; its content can be deleted while no run is active."""

_HEAVY = (".safetensors", ".pt")
_MARKER = "state.json"
_RECORDS = ".sync"


@dataclass(frozen=True, slots=True)
class BucketRun:
    """A run at s3://bucket/prefix and its working copy."""

    uri: str

    @property
    def folder(self) -> Path:
        """The working copy; each URI has its own."""
        return WORKING_COPIES / hashlib.sha256(absolute(self.uri).encode()).hexdigest()[:16]

    def pull(self, without: Container[str] = ()) -> None:
        """Update the working copy's small files; delete checkpoints that are gone from the bucket.

        One process of a machine does it at a time: what one has downloaded the others need not.

        Args:
            without: names in the run's folder that are not wanted.
        """
        with self._alone():
            versions = dict(s3.list_versions(self.uri))
            wanted = {name: version for name, version in versions.items() if name.split("/")[0] not in without}
            self._update(wanted)
            self._delete_gone(versions)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / ".lock").open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _update(self, versions: Mapping[str, str]) -> None:
        for name, version in versions.items():
            path, known = self.folder / name, self._record(self.folder / name)
            changed_here = path.is_file() and (known is None or known[1] != path.stat().st_mtime_ns)
            up_to_date = path.is_file() and known is not None and known[0] == version
            if not (name.endswith(_HEAVY) or name.startswith(f"{LEASES}/") or changed_here or up_to_date):
                s3.download(join(self.uri, name), path)
                self._remember(path, version, path.stat().st_mtime_ns)

    def _delete_gone(self, versions: Container[str]) -> None:
        for marker in self.folder.glob(f"*/checkpoints/*/{_MARKER}"):
            # Without a record it was made here and is still on its way to the bucket.
            if self._record(marker) is not None and str(marker.relative_to(self.folder)) not in versions:
                self._forget(marker)
                shutil.rmtree(marker.parent)

    def fetch(self, info: "CheckpointInfo", names: tuple[str, ...] | None = None) -> None:
        """Download a checkpoint's files, all or those named, unless they are present.

        Raises:
            CheckpointError: a file is missing in the bucket.
        """
        for name in info.state["sha256"] if names is None else names:
            path = info.path / name
            if not path.is_file():
                uri = self.uri_of(path)
                if s3.head(uri) is None:
                    raise CheckpointError(f"{uri} is missing; delete {self.uri_of(info.path)} to use the one before it")
                s3.download(uri, path)

    def push(self, *paths: Path) -> None:
        """Upload files of the working copy, except missing and unchanged ones."""
        for path in paths:
            known = self._record(path)
            changed = path.stat().st_mtime_ns if path.is_file() else None  # read first: an append meanwhile is another
            if changed is not None and (known is None or known[1] != changed):
                s3.upload(str(path), self.uri_of(path))
                self._remember(path, (s3.head(self.uri_of(path)) or {}).get("ETag", ""), changed)

    def push_checkpoint(self, path: Path) -> None:
        """Upload a checkpoint's folder, its marker last."""
        self.push(*(file for file in sorted(path.iterdir()) if file.name != _MARKER), path / _MARKER)

    def push_results(self) -> None:
        """Upload all small files outside checkpoints: schedules, searches, evaluations, samples, reports."""
        for path in sorted(path for path in self.folder.rglob("*") if path.is_file()):
            parts = path.relative_to(self.folder).parts
            if not {"checkpoints", "ray", _RECORDS, LEASES} & set(parts) and not path.name.startswith("."):
                self.push(path)

    def delete_checkpoint(self, path: Path) -> None:
        """Delete a checkpoint from the bucket, its marker first."""
        uri = self.uri_of(path)
        delete(join(uri, _MARKER))
        self._forget(path / _MARKER)
        self.delete_below(uri)

    def delete_below(self, uri: str) -> None:
        """Delete everything below a prefix of the bucket but the leases, of which the caller holds one."""
        for name, _ in list(list_files(uri)):
            if not name.startswith(f"{LEASES}/"):
                delete(join(uri, name))

    def uri_of(self, path: Path) -> str:
        """Where a file or folder of the working copy is in the bucket."""
        return join(self.uri, *path.relative_to(self.folder).parts)

    def _record(self, path: Path) -> tuple[str, int] | None:
        """(version in the bucket, copy's modification time in ns) when both were last equal."""
        try:
            version, changed = self._record_path(path).read_text(encoding="utf-8").split()
        except FileNotFoundError:
            return None
        return version, int(changed)

    def _remember(self, path: Path, version: str, changed: int) -> None:
        write_atomic(str(self._record_path(path)), f"{version} {changed}".encode())

    def _forget(self, path: Path) -> None:
        self._record_path(path).unlink(missing_ok=True)

    def _record_path(self, path: Path) -> Path:
        return self.folder / _RECORDS / path.relative_to(self.folder)
