"""A model registry on a disk or in a bucket: immutable versions, and a pointer to the promoted one.

REGISTRY/v0001/             a run folder with weights to sample from and schedules: `sr3 upscale --run REGISTRY/v0001`
REGISTRY/v0001/claim.json   which retraining owns this number
REGISTRY/v0001/version.json metrics, provenance, sha256 of every file; written last: it makes the version complete
REGISTRY/promoted/          a journal of promotions and rollbacks; its last entry counts
REGISTRY/lease/             held by the running retraining
"""

import hashlib
import re
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.runs.run_folder import Run
from pipelines.storage.journal import Entry, Journal
from pipelines.storage.lease import owner
from pipelines.storage.uris import absolute, create, exists, join, list_files, open_seekable, put_file, read_bytes
from pipelines.storage.versioned_json import JsonFormat
from sr3core import strict_json
from sr3core.config import did_you_mean, to_dict
from sr3core.errors import CheckpointError, ConfigError, DataError

VERSION, CLAIM, PROMOTED, LEASE = "version.json", "claim.json", "promoted", "lease"
_NAME = re.compile(r"v(\d{4,})")
_WEIGHTS = ".safetensors"
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
        return Version(name, join(self.uri, name), _FORMAT.read(path))

    def promoted(self) -> tuple[Version | None, Entry]:
        """The promoted version, None before the first promotion, and the journal entry that names it, for `promote`."""
        entry = self._journal.last()
        return (self.version(entry.content["version"]) if entry.number else None), entry

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
            files = _collect(run, Path(folder))
            sums = {path: _sha256(file) for path, file in sorted(files.items())}
            for path, file in files.items():
                put_file(str(file), join(uri, *path.split("/")))
        content = {
            "retraining": retraining,
            "metrics": metrics,
            "provenance": provenance,
            "sha256": sums,
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

    def roll_back(self, name: str | None = None) -> str:
        """Promote an earlier version again, by default the one that the current one replaced; returns its name.

        Raises:
            ConfigError: there is no such version, or no earlier one, or another process promoted one at the same time.
            CheckpointError: one of its files is missing or was changed.
        """
        current, last = self.promoted()
        if name is None:
            if current is None:
                raise ConfigError(f"{self.uri}: no version has been promoted yet, so there is none to roll back from")
            entries = [entry.content for entry in self.history() if entry.content["version"] == current.name]
            name = next((entry["previous"] for entry in reversed(entries) if not entry.get("rollback")), None)
            if name is None:
                raise ConfigError(f"{self.uri}: {current.name} was the first one promoted; there is none before it")
        self.verify(name)
        if current is not None and current.name == name:
            raise ConfigError(f"{self.uri}: {name} is already the promoted version")
        previous = current.name if current else None
        content = {"version": name, "previous": previous, "why": "rollback", "rollback": True}
        if self._append(last, content) is None:
            raise ConfigError(
                f"{self.uri}: another process has just promoted a version; check `sr3 models`, then repeat this"
            )
        return name

    def verify(self, name: str) -> None:
        """Compare every file of a version, including the weights, with its recorded sha256.

        Raises:
            ConfigError: there is no such version.
            CheckpointError: a file is missing or was changed.
        """
        version = self.version(name)
        for path, expected in version.content["sha256"].items():
            _check(version.uri, path, expected)

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
    """The run folder to sample with: a registry's promoted version; any other location is returned unchanged.

    A version's small files are verified here, its weights when they are loaded.

    Raises:
        DataError: a registry without a promoted version.
        CheckpointError: a version's files were changed.
    """
    location = absolute(location)
    if not exists(join(location, "config.json")):
        registry = Registry(location)
        version, _ = registry.promoted()
        if version is None and registry.versions():
            raise DataError(
                f"{location} is a registry without a promoted version; `sr3 models {location} --promote VERSION` sets"
                " one"
            )
        location = version.uri if version is not None else location
    if exists(join(location, VERSION)):
        _check_small_files(location, _FORMAT.read(join(location, VERSION))["sha256"])
    return location


def _check_small_files(location: str, sums: dict[str, str]) -> None:
    for path, expected in sums.items():
        if not path.endswith(_WEIGHTS):
            _check(location, path, expected)
    for path, _ in list_files(location):
        if "/schedules/" in path and path not in sums:
            raise CheckpointError(f"{join(location, path)} is not part of this version, but would be used; delete it")


def _collect(run: Run, folder: Path) -> dict[str, Path]:
    """The files of a version by their paths in it: configuration, weights to sample with, the best schedules."""
    from sr3core.checkpoint import verify, write_sampling_state

    content = strict_json.loads((run.path / "config.json").read_text()) | {"config": to_dict(run.config)}
    (folder / "config.json").write_text(strict_json.dumps(content, indent=1))
    files = {"config.json": folder / "config.json"}
    for stage in run.stages:
        info = stage.weights.fetch(stage.weights.newest())
        verify(info)
        place = f"{stage.name}/checkpoints/{info.path.name}"
        state = folder / stage.name / "state.json"
        weights = write_sampling_state(info, state)
        files |= {f"{place}/{weights.name}": weights, f"{place}/state.json": state}
        files |= {f"{stage.name}/schedules/{path.name}": path for path in sorted(stage.schedules.glob("*.json"))}
    return files


def _check(uri: str, path: str, expected: str) -> None:
    file = join(uri, *path.split("/"))
    if not exists(file):
        raise CheckpointError(f"{file} is missing; restore it, or use another version")
    with open_seekable(file) as opened:
        found = hashlib.file_digest(opened, "sha256").hexdigest()
    if found != expected:
        raise CheckpointError(f"{file} is damaged: its sha256 is not the recorded one; use another version")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def describe(registry: Registry) -> Iterator[str]:
    """A line per version: name, whether it is promoted, when it was, its metrics, its retraining."""
    current, _ = registry.promoted()
    times = {entry.content["version"]: entry.content for entry in registry.history()}
    versions = registry.versions()
    if not versions:
        yield f"{registry.uri} holds no version; `sr3 retrain` creates the first"
    for version in versions:
        entry = times.get(version.name)
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry["time"])) if entry else "not promoted"
        mark = "promoted" if current and current.name == version.name else ""
        yield f"{version.name}  {mark:<8}  {when:<16}  {_numbers(version.metrics)}  {version.retraining}"


def _numbers(metrics: dict[str, Any]) -> str:
    values = metrics.get("values", {})
    return ", ".join(f"{name} {value:.4g}" for name, value in values.items()) + f" ({metrics.get('label', '')})"
