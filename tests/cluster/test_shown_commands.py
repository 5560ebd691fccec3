"""A command that a message shows can be pasted into a shell: whatever a person named is quoted in it."""

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.report.next_commands import after_preparation
from pipelines.settings.mixtures import data_words, read_data

ROOT = Path(__file__).resolve().parents[2]
NAMES = {"job", "self._job", "versions[-1].name", "stage", "stages", "stages[0]", "unsearched[0]", "others", "kind"}
"""What a command shows beside paths: names and numbers of our own, which a shell takes as they are."""
OF_OURS = {
    "WEIGHTS_PACKAGE",
    "self.fitting_window",
    "defaults + 1",
    "address",
    "fitting",
    "len(names)",
    "wanted",
    "zone",
}
QUOTING = re.compile(r"^(quote|data_words|shlex\.join|_renamed|self\.most_trials|max)\(")
IN_COMMAND = re.compile(r"(\bsr3 [a-z]|--[a-z-]+ $)[^`]*$")


def shown_values() -> Iterator[tuple[str, str, str]]:
    """The values within commands in the product's texts: their place, their expression, and their file's source."""
    for file in sorted(path for room in ("cluster", "pipelines", "tune") for path in (ROOT / room).rglob("*.py")):
        source = file.read_text()
        for node in (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.JoinedStr)):
            text = ""
            for part in node.values:
                if isinstance(part, ast.FormattedValue):
                    if IN_COMMAND.search(text):
                        yield f"{file.relative_to(ROOT)}:{part.lineno}", ast.unparse(part.value), source
                    text += "_"
                elif isinstance(part, ast.Constant):
                    text += str(part.value)


def is_quoted(expression: str, source: str) -> bool:
    """Whether an expression is quoted, or a name to which a quoted text was given."""
    if QUOTING.match(expression):
        return True
    given = re.compile(rf"\b{re.escape(expression)}\b[^=\n]* = .*\bquote\(")
    return expression.isidentifier() and given.search(source) is not None


def test_what_a_shown_command_names_is_quoted():
    shown = list(shown_values())
    assert len(shown) > 30, "the walk finds the commands"
    bare = [
        f"{place}: {expression}"
        for place, expression, source in shown
        if expression not in NAMES | OF_OURS and "if" not in expression and not is_quoted(expression, source)
    ]
    assert not bare


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["my data"], "'my data'"),
        (["a"], "a"),
        (["my faces=2", "s3://bucket/a?endpoint_override=http://h:1=1"], None),
    ],
)
def test_data_are_typed_as_a_shell_reads_them(arguments, words):
    text = data_words(read_data(arguments))
    assert words is None or text == words
    assert shlex.split(text) == arguments


def test_the_next_command_survives_a_space():
    assert after_preparation(["16-64"], "/home/me/my data").endswith("--data '/home/me/my data' --out RUN")
