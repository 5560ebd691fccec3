"""MkDocs hook: an entry of the navigation that names a folder, `reference/commands/`, holds that folder's pages."""

from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files


def filled(nav: Any, pages: list[str]) -> Any:
    """The navigation with folders replaced by their pages."""
    if isinstance(nav, list):
        return [filled(item, pages) for item in nav]
    if isinstance(nav, dict):
        return {title: filled(item, pages) for title, item in nav.items()}
    if isinstance(nav, str) and nav.endswith("/"):
        return sorted((page for page in pages if page.startswith(nav)), key=_place)
    return nav


def _place(page: str) -> tuple[bool, str]:
    """index.md first, then by name: `sr3core` before `sr3core.images`."""
    return not page.endswith("/index.md"), page.removesuffix(".md")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Fill the navigation; this hook comes after those that make pages."""
    config.nav = filled(config.nav, [page.src_uri for page in files.documentation_pages()])
    return files
