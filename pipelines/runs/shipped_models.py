"""Models that come with the program: builtin://NAME stands for a folder inside the package, on any machine."""

from pathlib import Path

from pipelines.settings.locations import BUILTIN
from sr3core.config import did_you_mean
from sr3core.errors import ConfigError

MODELS = Path(__file__).parents[1] / "models"
"""One folder per model, as `sr3 export` writes them."""


def is_shipped(location: str) -> bool:
    """Whether a location is that of a model that comes with the program."""
    return location.startswith(BUILTIN)


def shipped_folder(location: str) -> Path:
    """The folder of builtin://NAME on this machine.

    Raises:
        ConfigError: there is no such model.
    """
    name = location.removeprefix(BUILTIN)
    known = sorted(path.parent.name for path in MODELS.glob("*/config.json"))
    if name not in known:
        raise ConfigError(f"{location}: no such model comes with this program, {did_you_mean(name, known)}")
    return MODELS / name


def shipped_location(folder: Path) -> str | None:
    """builtin://NAME for the folder of such a model; None for any other folder."""
    return f"{BUILTIN}{folder.name}" if folder.parent == MODELS else None
