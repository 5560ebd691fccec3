"""MkDocs hook: every `Deviation:` that the code declares, in docs/explanation/deviations.md where it says so."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("sr3core", "pipelines", "tune", "cluster")
MARK = "<!-- deviations -->"


def deviations() -> Iterator[tuple[str, str]]:
    """Each declared deviation: where it is (file and name), and its sentence or sentences."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            for name, text in _documented(ast.parse(path.read_text(encoding="utf-8"))):
                for part in text.split("Deviation:")[1:]:
                    until = re.split(r"\n\s*\n|\n\s+\w+: |\n\w+:\n", part)[0]  # a paragraph, or an argument's text
                    yield f"{path.relative_to(ROOT)}: `{name}`", re.sub(r"\s+", " ", until).strip()


def _documented(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Names and docstrings of functions and classes, and of the fields that a string follows."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name, ast.get_docstring(node) or ""
        if isinstance(node, ast.ClassDef):
            for field, after in zip(node.body, node.body[1:], strict=False):
                if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and _is_string(after):
                    yield f"{node.name}.{field.target.id}", ast.literal_eval(after.value)  # type: ignore[attr-defined]


def _is_string(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Put the list where a page asks for it."""
    if MARK not in markdown:
        return markdown
    found = "\n".join(f"{where}\n:   {text[0].upper()}{text[1:]}\n" for where, text in deviations())
    return markdown.replace(MARK, found)
