"""MkDocs hook: the tutorials that are notebooks as pages of text and code; the notebook is beside each."""

from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from sr3core import strict_json

TUTORIALS = Path(__file__).resolve().parents[1] / "tutorials"


def page_of(notebook: Path) -> str:
    """A notebook's cells as Markdown."""
    cells: list[dict[str, Any]] = strict_json.loads(notebook.read_bytes())["cells"]
    parts = [_markdown(cell["cell_type"], "".join(cell["source"])) for cell in cells]
    title, *rest = parts
    download = f"[Download the notebook]({notebook.name})"
    return "\n\n".join([*title.split("\n\n", 1)[:1], download, *title.split("\n\n", 1)[1:], *rest]) + "\n"


def _markdown(kind: str, source: str) -> str:
    return source if kind == "markdown" else f"```python\n{source}\n```"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages to the site."""
    for notebook in sorted(TUTORIALS.glob("*.ipynb")):
        files.append(File.generated(config, f"tutorials/{notebook.stem}.md", content=page_of(notebook)))
    return files
