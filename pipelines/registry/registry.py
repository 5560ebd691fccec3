"""A model registry on a disk or in a bucket: immutable versions, and a pointer to the promoted one.

REGISTRY/v0001/             a run folder with weights to sample from and schedules: `sr3 upscale --run REGISTRY/v0001`
REGISTRY/v0001/claim.json   which retraining owns this number
REGISTRY/v0001/version.json metrics, provenance, sha256 of every file; written last: it makes the version complete
REGISTRY/promoted/          a journal of promotions and rollbacks; its last entry counts
REGISTRY/lease/             held by the running retraining
"""

import re
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

from pipelines.registry.version_files import check_file, check_small_files, collect_version, sha256_of_file
from pipelines.runs.hub_models import is_read_only
from pipelines.runs.run_folder import Run
from pipelines.storage.atomic_writers import put_file
from pipelines.storage.leases.journal import Entry, Journal
from pipelines.storage.leases.lease import owner
from pipelines.storage.uris import absolute, create, exists, join, list_files, read_bytes
from pipelines.storage.versioned_json import JsonFormat
from sr3core import strict_json
from sr3core.config import did_you_mean
from sr3core.errors import CheckpointError, ConfigError, DataError

VERSION, CLAIM, PROMOTED, LEASE = "version.json", "claim.json", "promoted", "lease"
_NAME = re.compile(r"v(\d{4,})")
_FORMAT = JsonFormat(
    title="registry version",
    version=1,
    name="sr3-version",
    if_damaged="take another version",
    if_other_version="take another version",
    error=CheckpointError,
)


@dataclass(frozen=True, slots=True)
class Version:
    """A complete version."""

    name: str
    """Such as v0003."""
    uri: str
    """Its run folder."""
    content: dict[str, Any]
    """Its version.json."""

    @property
    def retraining(self) -> str:
        """The retraining that made it."""
        return self.content["retraining"]

    @property
    def published(self) -> float | None:
        """When it was published, Unix time in seconds; None for versions from before this was recorded."""
        return self.content.get("published")

    @property
    def metrics(self) -> dict[str, Any]:
        """Its metrics, and how they were measured."""
        return self.content["metrics"]


@dataclass(frozen=True, slots=True)
class Registry:
    """A registry; an empty folder or prefix is an empty registry."""

    uri: str

    @property
    def lease(self) -> str:
        """URI of its lease."""
        return join(self.uri, LEASE)

    def versions(self) -> list[Version]:
        """The complete versions, the oldest first."""
        return [self.version(name) for name in self._names() if exists(join(self.uri, name, VERSION))]

    def version(self, name: str) -> Version:
        """One version.

        Raises:
            ConfigError: there is none of that name.
            CheckpointError: its version.json is damaged or of another format version.
        """
        path = join(self.uri, name, VERSION)
        if not exists(path):
            known = [name for name in self._names() if exists(join(self.uri, name, VERSION))]
            hint = did_you_mean(name, known) if known else "it holds none"
            raise ConfigError(f"{self.uri} has no version {name!r}; {hint}")
        return Version(name, join(self.uri, name), _read_version(path))

    def promoted(self) -> tuple[Version | None, Entry]:
        """The promoted version, None before the first promotion, and the journal entry that names it, for `promote`."""
        entry = self._journal.last()
        return (self.version(_promoted_in(entry, self.uri)) if entry.number else None), entry

    def history(self) -> list[Entry]:
        """All promotions and rollbacks, the oldest first."""
        return list(self._journal.entries())

    def publish(self, run: Run, retraining: str, metrics: dict[str, Any], provenance: dict[str, Any]) -> Version:
        """Publish a run's newest weights and its schedules as a version; idempotent for the same retraining.

        Args:
            run: a trained run.
            retraining: a name unique among all retrainings.
            metrics: JSON data: the metrics, and how they were measured.
            provenance: JSON data: what the version was made from.

        Raises:
            CheckpointError: a checkpoint of the run is damaged.
        """
        name = self._claim(retraining)
        uri = join(self.uri, name)
        if exists(join(uri, VERSION)):
            return self.version(name)
        with tempfile.TemporaryDirectory(prefix="sr3-version-") as folder:
            files = collect_version(run, Path(folder))
            sums = {path: sha256_of_file(file) for path, file in sorted(files.items())}
            for path, file in files.items():
                put_file(str(file), join(uri, *path.split("/")))
        content = {
            "retraining": retraining,
            "metrics": metrics,
            "provenance": provenance,
            "sha256": sums,
            "published": time.time(),
        }
        create(join(uri, VERSION), _FORMAT.encode(content))
        return self.version(name)

    def promote(self, name: str, why: str, after: Entry) -> bool:
        """Promote a version; False if the journal has moved on since `after`, its last entry as the caller saw it.

        Raises:
            ConfigError: there is no such version.
            CheckpointError: one of its files is missing or was changed.
        """
        self.verify(name)
        content = {"version": name, "previous": after.content.get("version"), "why": why}
        return self._append(after, content) is not None

    def promote_by_hand(self, name: str) -> None:
        """Promote a version whatever its metrics.

        Raises:
            ConfigError: there is no such version, it is promoted already, or another process promoted one meanwhile.
            CheckpointError: one of its files is missing or was changed.
        """
        self._put_in_use(name, self._journal.last(), {"why": "by hand"})

    def roll_back(self) -> str:
        """Undo the newest promotion that has not been undone: promote what it replaced; returns that version's name.

        Raises:
            ConfigError: there was no version before it, or another process promoted one meanwhile.
            CheckpointError: one of its files is missing or was changed.
        """
        history = self.history()
        line = _line_of_promotions(history)
        if not line:
            raise ConfigError(f"{self.uri}: no version has been promoted yet, so there is none to roll back from")
        if len(line) == 1:
            raise ConfigError(
                f"{self.uri}: {line[0]} was the first one promoted; there is none before it, but `sr3 models"
                f" {quote(self.uri)} --promote VERSION` sets any"
            )
        self._put_in_use(line[-2], history[-1], {"why": "rollback", "rollback": True})
        return line[-2]

    def _put_in_use(self, name: str, after: Entry, content: dict[str, Any]) -> None:
        self.verify(name)
        current = after.content.get("version")
        if current == name:
            raise ConfigError(f"{self.uri}: {name} is already the promoted version")
        if self._append(after, {"version": name, "previous": current, **content}) is None:
            raise ConfigError(
                f"{self.uri}: another process has just promoted a version; check `sr3 models {quote(self.uri)}`,"
                " then repeat this"
            )

    def verify(self, name: str) -> None:
        """Compare every file of a version, including the weights, with its recorded sha256.

        Raises:
            ConfigError: there is no such version.
            CheckpointError: a file is missing or was changed.
        """
        version = self.version(name)
        for path, expected in version.content["sha256"].items():
            check_file(version.uri, path, expected)

    @property
    def _journal(self) -> Journal:
        return Journal(join(self.uri, PROMOTED))

    def _append(self, after: Entry, content: dict[str, Any]) -> Entry | None:
        return self._journal.append(after, {**content, "by": owner(), "time": time.time()})

    def _names(self) -> list[str]:
        """Names of the claimed versions, complete or not, the oldest first."""
        if not exists(self.uri):
            return []
        found = {name.partition("/")[0] for name, _ in list_files(self.uri) if name.endswith((VERSION, CLAIM))}
        return sorted((name for name in found if _NAME.fullmatch(name)), key=lambda name: int(name[1:]))

    def _claim(self, retraining: str) -> str:
        """The name of a retraining's version: the one that it has claimed, or the next free one."""
        data = strict_json.dumps({"retraining": retraining}).encode()
        names = self._names()
        for name in names:
            if read_bytes(join(self.uri, name, CLAIM)) == data:
                return name
        number = int(names[-1][1:]) + 1 if names else 1
        while not create(join(self.uri, f"v{number:04d}", CLAIM), data):
            number += 1
        return f"v{number:04d}"


def find_model(location: str) -> str:
    """The run folder to sample with: a registry's promoted version; any other location stays what it is.

    A version's small files are verified here, its weights when they are loaded.

    Raises:
        DataError: a registry without a promoted version.
        CheckpointError: a version's files were changed.
    """
    if is_read_only(location):
        return location
    location = absolute(location)
    if not exists(join(location, "config.json")):
        registry = Registry(location)
        version, _ = registry.promoted()
        if version is None and registry.versions():
            raise DataError(
                f"{location} is a registry without a promoted version; `sr3 models {quote(location)} --promote VERSION`"
                " sets one"
            )
        location = version.uri if version is not None else location
    if exists(join(location, VERSION)):
        check_small_files(location, _read_version(join(location, VERSION))["sha256"])
    return location


def _read_version(path: str) -> dict[str, Any]:
    content = _FORMAT.read(path)
    with _FORMAT.decoding(path):
        values = content["metrics"].get("values", {})
        if not isinstance(values, dict) or not all(isinstance(text, str) for text in content["sha256"].values()):
            raise TypeError("metrics or sha256")
    return content


def _promoted_in(entry: Entry, registry: str) -> str:
    name = entry.content.get("version")
    if not isinstance(name, str):
        raise DataError(
            f"{registry}: entry {entry.number} of its promotions names no version; delete it to return to the former"
        )
    return name


def _line_of_promotions(history: Sequence[Entry]) -> list[str]:
    """The versions promoted and not rolled back, the current one last."""
    line: list[str] = []
    for entry in history:
        name = _promoted_in(entry, "the registry")
        # Promotions by hand used to be recorded as rollbacks: only a step back to the version before is one.
        if entry.content.get("rollback") and line[-2:-1] == [name]:
            line.pop()
        else:
            line.append(name)
    return line
