"""The state of a retraining: WORK/retraining-0001/state.json."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.storage.versioned_json import JsonFormat
from sr3core import strict_json
from sr3core.config import differences, scientific
from sr3core.errors import ConfigError
from tune.retraining.settings import RetrainConfig

FORMAT = JsonFormat(
    title="retraining",
    version=1,
    name="sr3-retraining",
    if_damaged="delete its folder to abandon that retraining",
    if_other_version="use another work folder",
)


@dataclass(frozen=True, slots=True)
class State:
    """The content of a retraining's state.json."""

    folder: Path
    content: dict[str, Any]

    @property
    def name(self) -> str:
        """Its name, unique among all retrainings."""
        return self.content["name"]

    @property
    def start(self) -> str | None:
        """The version whose weights it starts from; None for random weights."""
        return self.content["start"]


def read_states(work: Path) -> list[State]:
    """The retrainings in a work folder, the oldest first."""
    return [State(path.parent, FORMAT.read(path)) for path in sorted(work.glob("retraining-*/state.json"))]


def unfinished(states: Sequence[State]) -> State | None:
    """The retraining that has not ended, if there is one."""
    return states[-1] if states and states[-1].content["end"] is None else None


def check_config(state: State, config: RetrainConfig) -> None:
    """Refuse to resume with a different configuration.

    Raises:
        ConfigError: names every difference.
    """
    changed = differences(state.content["config"], strict_json.plain(scientific(config)))
    if changed:
        raise ConfigError(
            f"{state.folder} has not ended and was started with a different configuration ({'; '.join(changed)});"
            " finish it with that one, or abandon it with --fresh"
        )
