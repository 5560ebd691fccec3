"""Labels as sources write them, and the class numbers that they mean."""

from collections.abc import Sequence

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


def number_classes(items: Sequence[SourceItem]) -> tuple[list[SourceItem], tuple[str, ...]]:
    """Number the classes that only have names by the alphabetical order of the names, as imagefolder does.

    The numbers depend on the set of names alone, not on the files' order or number.

    Returns:
        The items, and the names by number.

    Raises:
        DataError: other items have numbers.
    """
    named = next((item for item in items if item.label == BY_NAME), None)
    if named is None:
        return list(items), ()
    numbered = next((item for item in items if item.label is not None and item.label >= 0), None)
    if numbered is not None:
        raise DataError(
            f"source: {named.name} is labelled {named.synset!r} and {numbered.name} is labelled {numbered.label}: names"
            " and numbers of classes cannot be mixed; mend one of them, or do without labels by `--label-column none`"
        )
    names = tuple(sorted({item.synset or "" for item in items if item.label == BY_NAME}))
    index = {name: number for number, name in enumerate(names)}
    return [i._replace(label=index[i.synset or ""]) if i.label == BY_NAME else i for i in items], names
