"""PAPER.md names only what exists."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROWS = re.findall(r"^\|(.+?)\|\s*`([^`]+)`\s*\|\s*`([^`]+)`\s*\|$", (ROOT / "PAPER.md").read_text(), re.MULTILINE)
EQUATIONS = set(range(1, 15))


def names_in(path: Path) -> set[str]:
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{item.name}" for item in node.body if isinstance(item, ast.FunctionDef)}
    return found


@pytest.mark.parametrize(("paper", "where", "test"), ROWS, ids=[row[0].strip() for row in ROWS])
def test_every_row_names_a_function_and_a_test_that_exist(paper, where, test):
    for reference in (where, test):
        file, _, name = reference.partition("::")
        assert (ROOT / file).is_file(), f"{paper.strip()}: {file} does not exist"
        assert not name or name in names_in(ROOT / file), f"{paper.strip()}: {file} has no {name}"


def test_every_equation_and_both_algorithms_have_a_row():
    text = " ".join(row[0] for row in ROWS)
    assert {int(number) for number in re.findall(r"Equation \((\d+)\)", text)} == EQUATIONS
    assert "Algorithm 1" in text
    assert "Algorithm 2" in text


@pytest.mark.parametrize("number", sorted(EQUATIONS))
def test_the_function_of_an_equation_says_its_number_in_its_first_line(number):
    file, name = next(row[1] for row in ROWS if f"Equation ({number})" in row[0]).split("::")
    tree = ast.parse((ROOT / file).read_text())
    (function,) = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name]
    assert f"Equation ({number})" in (ast.get_docstring(function) or "").splitlines()[0]
