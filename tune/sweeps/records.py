"""How the trainings of a sweep ended, on disk: a sweep that was stopped passes over them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pipelines.storage.uris import is_file, join, read_bytes, write_atomic
from pipelines.storage.versioned_json import decoding
from sr3core import strict_json
from sr3core.config import differences, from_dict, to_dict
from sr3core.errors import ConfigError

FORMAT_VERSION = 1
REMEDY = "choose another --out"


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingRecord:
    """How one training ended."""

    name: str
    changes: dict[str, Any]
    status: Literal["done", "stopped", "failed"]
    """done: trained to the last step; stopped: others were better at its rung; failed: see error."""
    step: int = 0
    """Its last step."""
    losses: tuple[float, ...] = ()
    """Held-out loss at each rung that it reached."""
    error: str | None = None

    @property
    def loss(self) -> float:
        """At its last rung; infinite if it reached none."""
        return self.losses[-1] if self.losses else float("inf")


@dataclass(slots=True)
class SweepRecords:
    """The records in OUT/sweep; only one process writes them.

    Raises:
        ConfigError: the folder holds another sweep.
    """

    out: str
    identity: Mapping[str, Any]
    """Everything that decides the trainings and how they compete."""
    names: Sequence[str]
    ended: list[TrainingRecord] = field(default_factory=list)

    def __post_init__(self) -> None:
        marker = join(self.out, "sweep", "identity.json")
        identity = strict_json.plain({**self.identity, "format_version": FORMAT_VERSION})
        if is_file(marker):
            with decoding(marker, "record of a sweep", REMEDY):
                changed = differences(dict(strict_json.loads(read_bytes(marker))), identity)
            if changed:
                raise ConfigError(f"out: {self.out} holds another sweep: {'; '.join(changed)}; {REMEDY}")
        write_atomic(marker, strict_json.dumps(identity, indent=1).encode())
        for path in map(self._path, self.names):
            if is_file(path):
                with decoding(path, "record of a training", REMEDY):
                    self.ended.append(from_dict(TrainingRecord, strict_json.loads(read_bytes(path))))

    def _path(self, name: str) -> str:
        return join(self.out, "sweep", f"{name}.json")

    def end(self, record: TrainingRecord) -> None:
        """Record how a training ended."""
        write_atomic(self._path(record.name), strict_json.dumps(to_dict(record), indent=1).encode())
        self.ended.append(record)

    @property
    def ranked(self) -> list[TrainingRecord]:
        """Those that trained longest first, then by held-out loss; those that failed last."""
        return sorted(self.ended, key=lambda one: (one.status == "failed", -one.step, one.loss))
