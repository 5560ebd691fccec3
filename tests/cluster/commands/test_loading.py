"""A command that loads torch or Ray tells, while it does, how long that has been going on."""

import ast
import inspect
from collections.abc import Iterator

import pytest

from cluster.catalog import COMMANDS
from cluster.commands import load

SLOW = ("pipelines", "tune")


def silent_imports(body: list[ast.stmt]) -> Iterator[str]:
    """The modules that a function imports outside `with loading():`."""
    for statement in body:
        is_told = isinstance(statement, ast.With) and ast.unparse(statement.items[0]) == "loading()"
        if isinstance(statement, ast.ImportFrom) and str(statement.module).startswith(SLOW):
            yield str(statement.module)
        elif isinstance(statement, ast.With | ast.If | ast.For | ast.Try) and not is_told:
            yield from silent_imports(statement.body)


@pytest.mark.parametrize("name", [name for name, command in COMMANDS.items() if not command.is_quick])
def test_what_takes_seconds_to_import_is_told(name):
    (function,) = ast.parse(inspect.getsource(load(name).run)).body
    assert isinstance(function, ast.FunctionDef)
    assert not list(silent_imports(function.body))
