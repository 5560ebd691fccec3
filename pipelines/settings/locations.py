"""Types of the settings that name files, folders or buckets. A setting of plain `str` names none.

A job runs on other machines than the one it is submitted from: before it is submitted, every path in its options is
checked, and these types say which options hold paths and where in the text they stand.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from pipelines.settings.mixtures import DataPart


@dataclass(frozen=True, slots=True)
class Paths:
    """Marks a text as holding paths."""

    metavar: str
    """What a help text calls the value."""
    find: Callable[[str], tuple[str, ...]]
    """The paths in such a text: absolute, relative, or URIs."""


def _whole(text: str) -> tuple[str, ...]:
    return (text,)


def _after_name(text: str) -> tuple[str, ...]:
    name, sign, path = text.partition("=")
    return (path,) if sign and "/" not in name else (text,)  # a path may hold an equals sign


def _before_weight(text: str) -> tuple[str, ...]:
    return (DataPart.read(text).folder,)


def split_start(choice: str) -> tuple[str, float | None]:
    """A choice of a schedule without its end @GAMMA, the level at which the chain starts from the input, and that."""
    name, sign, level = choice.rpartition("@")
    try:
        return (name, float(level)) if sign and not os.path.isfile(choice) else (choice, None)
    except ValueError:
        return choice, None


def _schedule_files(text: str) -> tuple[str, ...]:
    parts = (split_start(part.strip())[0] for part in text.split(","))
    return tuple(part for part in parts if "/" in part or os.path.isfile(part))  # all else is a name or a number


def _sqlite_file(address: str) -> tuple[str, ...]:
    scheme, sign, path = address.partition(":///")
    return (path,) if sign and scheme.partition("+")[0] == "sqlite" else ()


Location = Annotated[str, Paths("PATH", _whole)]
"""A file, a folder, a pattern, or s3://bucket/prefix."""
NamedLocation = Annotated[str, Paths("NAME=PATH", _after_name)]
"""NAME=PATH, or a path alone."""
DataLocation = Annotated[str, Paths("PATH[=WEIGHT]", _before_weight)]
"""A folder of prepared data, with a weight if there are several."""
ScheduleChoice = Annotated[str, Paths("SCHEDULE", _schedule_files)]
"""An inference schedule: a file, a name or a number of steps, and @GAMMA to start from the input at that level; several
are separated by commas."""
DatabaseAddress = Annotated[str, Paths("ADDRESS", _sqlite_file)]
"""A SQLAlchemy address, of which sqlite:///PATH names a file."""

HUB = "hf:"
"""What the address of a model on the Hugging Face hub begins with: hf:ORG/NAME, or hf:ORG/NAME@REVISION."""
BUILTIN = "builtin://"
"""Scheme of the models that come with the program."""
PHOTOS_4X = f"{BUILTIN}photos-4x"
"""The one that `sr3 upscale` uses by default."""
