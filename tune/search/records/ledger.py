"""The trials of one search on disk: which were started, which finished; a killed search resumes from them."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines.runs.run_folder import write_atomic
from pipelines.storage.versioned_json import decoding
from sr3core import strict_json
from sr3core.config import differences, from_dict, to_dict
from sr3core.diffusion.schedules import InferenceSchedule
from sr3core.errors import ConfigError
from tune.search.records.search_report import SEARCH_FORMAT_VERSION, Origin, TrialRecord


@dataclass(frozen=True, slots=True)
class Proposal:
    """A schedule to try."""

    schedule: InferenceSchedule
    origin: Origin
    point: dict[str, Any] | None = None


@dataclass(slots=True)
class Ledger:
    """The trials of one search on disk: which were started, which finished. Only one driver writes it.

    Raises:
        ConfigError: the folder holds the trials of another search.
    """

    folder: Path
    identity: dict[str, Any]
    """Everything that decides which schedules are tried and how they are judged; stored in identity.json."""
    finished: list[TrialRecord] = field(default_factory=list)
    interrupted: list[Proposal] = field(default_factory=list)

    def __post_init__(self) -> None:
        marker = self.folder / "identity.json"
        identity = strict_json.plain({**self.identity, "format_version": SEARCH_FORMAT_VERSION})
        remedy = "delete the folder it is in, or use another name"
        with decoding(marker, "record of a search", remedy):
            changed = differences(dict(strict_json.loads(marker.read_bytes())), identity) if marker.is_file() else []
        if changed:
            raise ConfigError(
                f"{self.folder} holds a search with a different space or model: {'; '.join(changed)}; delete it or use"
                " another name"
            )
        write_atomic(marker, strict_json.dumps(identity, indent=1))
        with decoding(self.folder / "trials", "record of trials", remedy):
            entries = [strict_json.loads(path.read_bytes()) for path in self.folder.glob("trials/*.json")]
            for data in sorted(entries, key=lambda entry: entry["index"]):
                self._take(data)

    def _take(self, data: dict[str, Any]) -> None:
        if data["ended"] is not None:
            self.finished.append(from_dict(TrialRecord, data["ended"]))
        else:
            begun = data["begun"]
            schedule = from_dict(InferenceSchedule, begun["schedule"])
            self.interrupted.append(Proposal(schedule, begun["origin"], begun["point"]))

    def begin(self, proposal: Proposal) -> None:
        """Record that a trial starts."""
        self._write(proposal.schedule.name, {"index": len(self.finished), "begun": to_dict(proposal), "ended": None})

    def end(self, record: TrialRecord) -> None:
        """Record how a trial ended."""
        self._write(record.name, {"index": len(self.finished), "begun": None, "ended": to_dict(record)})
        self.finished.append(record)

    def _write(self, name: str, content: dict[str, Any]) -> None:
        write_atomic(self.folder / "trials" / f"{name}.json", strict_json.dumps(content, indent=1))
