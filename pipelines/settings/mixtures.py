"""Training data from several preparations, in proportion to weights: `sr3 train … --data a=0.7 b=0.3`.

A run remembers its data as one text: a folder, or a mixture, which is the word `mixture:` and then the folders with
their weights, quoted as a shell would have them.
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import lcm

from sr3core.errors import ConfigError

MAX_PERIOD = 1024
"""The longest pattern that repeats exactly by given weights; others are rounded to multiples of 1/ROUNDED."""
ROUNDED = 2**14
_SCHEME = "mixture:"


@dataclass(frozen=True, slots=True)
class DataPart:
    """One of the preparations."""

    folder: str
    """What `sr3 prepare` wrote."""
    weight: str = ""
    """Its weight as it was given; empty if all are mixed in proportion to their numbers of samples."""

    @classmethod
    def read(cls, text: str) -> "DataPart":
        """Read FOLDER=WEIGHT, or FOLDER, which may hold an equals sign itself."""
        folder, sign, weight = text.rpartition("=")
        try:
            return cls(folder, weight) if sign and folder and Fraction(weight) is not None else cls(text)
        except (ValueError, ZeroDivisionError):
            return cls(text)

    def __str__(self) -> str:
        return f"{self.folder}={self.weight}" if self.weight else self.folder


def read_data(arguments: Sequence[str]) -> str:
    """The data of a run from the words of `--data`.

    Args:
        arguments: a folder; or several, all of them as FOLDER=WEIGHT or all without a weight.

    Raises:
        ConfigError: a folder occurs twice, some have weights and others not, or a weight is not positive.
    """
    if len(arguments) == 1:
        return arguments[0]
    parts = [DataPart.read(argument) for argument in arguments]
    if not parts:
        raise ConfigError("data: name a folder that `sr3 prepare` wrote, or several as FOLDER=WEIGHT")
    for part in parts:
        if part.weight and Fraction(part.weight) <= 0:
            raise ConfigError(f"data: {part}: the weight is not positive; leave the folder out instead")
    bare = [part.folder for part in parts if not part.weight]
    if bare and len(bare) < len(parts):
        raise ConfigError(f"data: {bare[0]} has no weight and others have; give a weight to each, or to none")
    return mixture_of(parts)


def mixture_of(parts: Sequence[DataPart]) -> str:
    """The text of several preparations; of a single one, its folder.

    Raises:
        ConfigError: a folder occurs twice.
    """
    if len(parts) == 1:
        return parts[0].folder
    folders = [part.folder for part in parts]
    for folder in folders:
        if folders.count(folder) > 1:
            raise ConfigError(f"data: {folder} is named twice; name each folder once, with a weight")
    return _SCHEME + shlex.join(map(str, parts))


def parts_of(data: str) -> tuple[DataPart, ...]:
    """The preparations that a run's data are."""
    if not data.startswith(_SCHEME):
        return (DataPart(data),)
    return tuple(map(DataPart.read, shlex.split(data.removeprefix(_SCHEME))))


def describe_data(data: str) -> str:
    """A run's data for people."""
    return data.removeprefix(_SCHEME)


def data_words(data: str) -> str:
    """A run's data as they are typed in a shell after `--data`."""
    return shlex.join(map(str, parts_of(data)))


def shares_of(weights: Sequence[Fraction]) -> tuple[int, ...]:
    """Samples that each preparation gives to one period of the pattern in which they alternate.

    The period is as short as the weights allow. If it would be longer than MAX_PERIOD, it is ROUNDED samples, of which
    each preparation gives at least one.
    """
    total = sum(weights)
    exact = [weight / total for weight in weights]
    period = lcm(*(share.denominator for share in exact))
    if period <= MAX_PERIOD:
        return tuple(int(share * period) for share in exact)
    counts = [max(1, int(share * ROUNDED)) for share in exact]
    while (rest := ROUNDED - sum(counts)) != 0:
        step = 1 if rest > 0 else -1
        movable = (part for part, count in enumerate(counts) if count + step >= 1)
        counts[max(movable, key=lambda part: step * (exact[part] * ROUNDED - counts[part]))] += step
    return tuple(counts)
