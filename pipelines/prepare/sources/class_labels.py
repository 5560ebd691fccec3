"""Labels as sources write them, and the class numbers that they mean."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from pipelines.prepare.sources.items import BY_NAME, SourceItem
from sr3core.errors import DataError

NO_LABELS = "none"
"""The label column that stands for doing without the labels of archives."""


def read_label(value: object, name: str) -> tuple[int | None, str | None]:
    """The class index that a label states, and the class name; (None, None) if it states nothing.

    Whole numbers are indices, also as text or as 3.0. Any other text is the name of a class, whose index is found when
    all names are known: BY_NAME until then.

    Args:
        value: the label as it is stored.
        name: the image that has it.

    Raises:
        DataError: it is neither.
    """
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    text = value.strip() if isinstance(value, str) else value
    if text is None or text == "" or text != text:  # NaN is how tables mark a missing number
        return None, None
    number = _number(text)
    if number is not None and number.is_integer():
        return int(text) if isinstance(text, int) else int(number), None
    if number is None and isinstance(text, str):
        return BY_NAME, text
    raise DataError(
        f"source: {name} has the label {str(text)[:80]!r}, which is neither a whole number nor the name of a class;"
        " mend it, or do without labels by `--label-column none`"
    )


def _number(text: object) -> float | None:
    if not isinstance(text, str | int | float):
        return None
    try:
        return float(text)
    except ValueError:
        return None


@dataclass(slots=True)
class ClassSurvey:
    """What must be known of all labels of a source before its classes are numbered."""

    named: tuple[str, str] | None = None
    """First item whose class has only a name: its name, and that of the class."""
    numbered: tuple[str, int] | None = None
    """First item whose class has a number."""
    names: set[str] = field(default_factory=set)
    """Names of the classes that have no numbers."""

    def add(self, items: Iterable[SourceItem]) -> None:
        """Take note of items."""
        for item in items:
            if item.label == BY_NAME:
                self.named = self.named or (item.name, item.synset or "")
                self.names.add(item.synset or "")
            elif self.numbered is None and item.label is not None and item.label >= 0:
                self.numbered = (item.name, item.label)

    def merge(self, other: "ClassSurvey") -> None:
        """Take note of what another has noted of later items."""
        self.named, self.numbered = self.named or other.named, self.numbered or other.numbered
        self.names |= other.names

    def class_names(self) -> tuple[str, ...]:
        """The names by number: in alphabetical order, as imagefolder numbers them.

        The numbers depend on the set of names alone, not on the files' order or number.

        Raises:
            DataError: other items have numbers.
        """
        if self.named and self.numbered:
            raise DataError(
                f"source: {self.named[0]} is labelled {self.named[1]!r} and {self.numbered[0]} is labelled"
                f" {self.numbered[1]}: names and numbers of classes cannot be mixed; mend one of them, or do without"
                " labels by `--label-column none`"
            )
        return tuple(sorted(self.names))
