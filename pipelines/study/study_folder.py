"""A frozen study on disk.

STUDY/study.json      everything that is declared: configuration, images, each slot's trials, checksums, provenance
STUDY/images/         PNGs under random names
STUDY/secrets.json    keys that sign tokens and open the administrator's page; not for publication
STUDY/study.sqlite    answers, unless they go to a PostgreSQL database
STUDY/results.json    and trials.csv, trials.json, figures/: what `sr3 study results` writes
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.runs.run_folder import local_path
from pipelines.storage.versioned_json import decoding
from pipelines.study.config import StudyConfig
from pipelines.study.design import Slot
from sr3core import strict_json
from sr3core.config import fingerprint_of, from_dict
from sr3core.errors import ConfigError, DataError

STUDY_FORMAT_VERSION = 1
RESULTS_FORMAT = ("sr3-study-results", 1)
_IF_DAMAGED = "restore it, or create the study again"
"""Format and version of results.json, which the report reads too."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pictures:
    """File names in STUDY/images: image -> file."""

    originals: dict[str, str]
    outputs: dict[str, dict[str, str]]
    """Model -> image -> file."""
    inputs: dict[str, str]
    """The low-resolution inputs, enlarged; empty for Task 2."""
    spoilt: dict[str, str]
    """The spoilt copies for practice trials and attention checks: image -> file."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyPlan:
    """The frozen part: what study.json holds besides format and provenance."""

    config: StudyConfig
    models: tuple[str, ...]
    images: tuple[str, ...]
    """The images of the study; practice and checks may use others."""
    slots: tuple[Slot, ...]
    pictures: Pictures
    checksums: dict[str, str]
    """File -> SHA-256."""


@dataclass(frozen=True, slots=True)
class Secrets:
    """Keys of one study."""

    signing: str
    admin: str


@dataclass(frozen=True, slots=True)
class Study:
    """An opened study."""

    path: Path
    plan: StudyPlan
    fingerprint: str
    provenance: dict[str, Any]

    @property
    def config(self) -> StudyConfig:
        """What was declared."""
        return self.plan.config

    @property
    def sqlite_path(self) -> Path:
        """Where answers are stored by default."""
        return self.path / "study.sqlite"

    def picture(self, file: str) -> Path:
        """Path of an image file."""
        return self.path / "images" / file

    def files_of(self, slot: Slot, position: int) -> dict[str, str]:
        """What a trial shows in each place: "first", "second" and, in Task 1, "input" -> file."""
        trial, pictures = slot.trials[position], self.plan.pictures
        other = (pictures.outputs[slot.model] if trial.kind == "trial" else pictures.spoilt)[trial.image]
        pair = (pictures.originals[trial.image], other)
        first, second = pair if trial.original_first else pair[::-1]
        shown = {"first": first, "second": second}
        return shown | ({"input": pictures.inputs[trial.image]} if self.config.task == 1 else {})

    def secrets(self) -> Secrets:
        """Read secrets.json.

        Raises:
            DataError: it is missing or damaged.
        """
        try:
            return from_dict(Secrets, strict_json.loads((self.path / "secrets.json").read_bytes()))
        except (OSError, ValueError) as error:
            raise DataError(f"{self.path / 'secrets.json'} cannot be read: {error}; create the study again") from error

    def verify(self) -> None:
        """Check that every image is present and unchanged.

        Raises:
            DataError: names the first one that is not.
        """
        for file, checksum in self.plan.checksums.items():
            path = self.picture(file)
            if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != checksum:
                raise DataError(f"{path} is missing or was changed since the study was frozen; create the study again")


def plan_to_json(plan: dict[str, Any], provenance: dict[str, Any]) -> str:
    """Text of study.json."""
    head = {"format": "sr3-study", "format_version": STUDY_FORMAT_VERSION, "fingerprint": fingerprint_of(plan)}
    return strict_json.dumps({**head, "plan": plan, "provenance": provenance})


def open_study(path: str | Path) -> Study:
    """Open what `sr3 study new` wrote.

    Raises:
        DataError: it is not a study, or study.json is damaged or was edited.
        ConfigError: it has another format version.
    """
    folder = local_path(path)
    try:
        content = strict_json.loads((folder / "study.json").read_bytes())
    except OSError as error:
        raise DataError(f"{folder} is not a study (no study.json); create one with `sr3 study new`") from error
    except ValueError as error:
        raise DataError(f"{folder / 'study.json'} is damaged: {error}; {_IF_DAMAGED}") from error
    if not isinstance(content, dict):
        raise DataError(f"{folder / 'study.json'} is damaged: it holds no object; {_IF_DAMAGED}")
    if content.get("format") != "sr3-study" or content.get("format_version") != STUDY_FORMAT_VERSION:
        raise ConfigError(
            f"{folder / 'study.json'} has format {content.get('format')!r} version {content.get('format_version')},"
            f" this program reads 'sr3-study' version {STUDY_FORMAT_VERSION}; {_IF_DAMAGED}"
        )
    with decoding(folder / "study.json", "study", _IF_DAMAGED):
        if fingerprint_of(content["plan"]) != content["fingerprint"]:
            raise DataError(
                f"{folder / 'study.json'} was edited after it was frozen: its fingerprint does not match; {_IF_DAMAGED}"
            )
        return Study(folder, from_dict(StudyPlan, content["plan"]), content["fingerprint"], content["provenance"])
