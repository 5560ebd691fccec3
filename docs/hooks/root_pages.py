"""MkDocs hook: PAPER.md, CHANGELOG.md and CONTRIBUTING.md of the repository's root as pages of the site."""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
PAGES = {
    "PAPER.md": "reference/paper.md",
    "CHANGELOG.md": "reference/changelog.md",
    "CONTRIBUTING.md": "explanation/contributing.md",
}


def page_of(source: str) -> str:
    """A root file with its links as they are seen from its place in the site."""
    folder = posixpath.dirname(PAGES[source])

    def relink(match: re.Match[str]) -> str:
        path, anchor = match[1], match[2] or ""
        target = path.removeprefix("docs/") if path.startswith("docs/") else PAGES.get(path)
        if target is None:
            return match[0]
        return f"]({posixpath.relpath(target, folder)}{anchor})"

    return re.sub(r"\]\(([\w./-]+)(#[\w-]+)?\)", relink, (ROOT / source).read_text(encoding="utf-8"))


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages to the site."""
    for source, place in PAGES.items():
        files.append(File.generated(config, place, content=page_of(source)))
    return files
