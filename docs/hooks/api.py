"""MkDocs hook: API pages, one a package of each room, from the tree itself: a new module appears by being there."""

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {
    "sr3core": "The paper, in torch and numpy. Images are float32, (B, C, H, W), in [-1, 1] unless stated otherwise.",
    "pipelines": "Ray, storage and ranks. The folders are the flow of the data.",
    "tune": "The schedule search, and retraining on a growing source.",
}


def modules_of(package: str) -> dict[str, list[str]]:
    """Room -> its modules, by dotted name; the package's own modules are in the room of its name."""
    rooms: dict[str, list[str]] = {package: []}
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts[-1] != "__init__":
            rooms.setdefault(".".join(parts[:-1]), []).append(".".join(parts))
    return {room: modules for room, modules in rooms.items() if modules}


def pages() -> dict[str, str]:
    """Path below reference/api -> Markdown."""
    found = {}
    for package, introduction in PACKAGES.items():
        rooms = modules_of(package)
        links = [f"- [`{room}`]({room}.md)" for room in rooms if room != package]
        own = [f"::: {module}\n" for module in rooms.get(package, [])]
        found[f"{package}.md"] = "\n".join([f"# {package}", "", introduction, "", *links, "", *own])
        for room, modules in rooms.items():
            if room != package:
                found[f"{room}.md"] = "\n".join([f"# {room}", "", *(f"::: {module}\n" for module in modules)])
    return found


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages to the site."""
    for path, content in pages().items():
        files.append(File.generated(config, f"reference/api/{path}", content=content))
    return files
