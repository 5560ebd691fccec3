"""Models on the Hugging Face hub: hf:ORG/NAME stands for a folder in the hub's cache, on any machine.

They need the package huggingface_hub. Its environment variables apply: HF_ENDPOINT, HF_HOME, HF_TOKEN, HF_HUB_OFFLINE.
"""

import re
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from pipelines.runs.shipped_models import is_shipped, shipped_folder, shipped_location
from pipelines.settings.locations import HUB
from sr3core import strict_json
from sr3core.errors import ConfigError, DataError, StorageError

_NAME = re.compile(r"[\w][\w.-]*/[\w][\w.-]*")
_FILES = ("*.json", "*.safetensors", "README.md")


def is_on_hub(location: str) -> bool:
    """Whether a location is that of a model on the hub."""
    return location.startswith(HUB)


def is_read_only(location: str) -> bool:
    """Whether a location is that of a model which only is read: on the hub, or one that comes with the program."""
    return is_shipped(location) or is_on_hub(location)


def read_only_folder(location: str) -> Path:
    """The folder of a read-only model on this machine; one on the hub is downloaded, once.

    Raises:
        ConfigError: the location is misspelled, or huggingface_hub is not installed.
        DataError: there is no such model, or it is another program's.
        StorageError: the hub cannot be reached, and its cache does not have the model.
    """
    return _downloaded(location) if is_on_hub(location) else shipped_folder(location)


def read_only_location(folder: Path) -> str | None:
    """The location that stands for a folder of such a model on any machine; None for any other folder."""
    repository = folder.parent.parent.name.split("--")
    if folder.parent.name == "snapshots" and repository[0] == "models" and len(repository) == 3:
        return f"{HUB}{repository[1]}/{repository[2]}@{folder.name}"
    return shipped_location(folder)


def check_name(name: str) -> str:
    """Check a model's name on the hub, ORG/NAME, and return it.

    Raises:
        ConfigError: it is none.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{name!r} is no name on the hub; write ORG/NAME")
    return name


def require_hub() -> ModuleType:
    """The package huggingface_hub.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import huggingface_hub
    except ModuleNotFoundError as error:
        raise ConfigError("models on the hub: huggingface_hub is missing; pip install 'sr3-on-ray[hub]'") from error
    return huggingface_hub


def _downloaded(location: str) -> Path:
    name, _, revision = location.removeprefix(HUB).partition("@")
    check_name(name)
    with hub_errors(location):
        hub = require_hub()
        small = Path(hub.snapshot_download(name, revision=revision or None, allow_patterns=["config.json"]))
        _require_model(location, small / "config.json")
        return Path(hub.snapshot_download(name, revision=small.name, allow_patterns=list(_FILES)))


def _require_model(location: str, file: Path) -> None:
    """Refuse what is no model of ours before gigabytes of it are downloaded."""
    try:
        content = strict_json.loads(file.read_bytes())
    except (FileNotFoundError, ValueError):
        content = None
    if not isinstance(content, dict) or content.get("format") != "sr3-run":
        raise DataError(f"{location} is no model of this program; name one that `sr3 export` wrote")


@contextmanager
def hub_errors(location: str) -> Generator[None]:
    """Turn the hub's errors into messages of one line, which repeat nothing of a request: it holds a token.

    Raises:
        DataError: there is no such model, revision or permission.
        StorageError: the hub cannot be reached, or fails.
    """
    require_hub()
    from huggingface_hub import constants, errors

    client_error = errors.HTTPError  # pyright: ignore[reportPrivateImportUsage] - of its HTTP client, whichever it is
    try:
        yield
    except errors.GatedRepoError:
        message = f"its terms must be accepted at {constants.ENDPOINT} first; do so, and run `hf auth login`"
        raise DataError(f"{location}: {message}") from None
    except errors.RepositoryNotFoundError:
        message = f"there is no such model at {constants.ENDPOINT}, or it is private"
        raise DataError(f"{location}: {message}; correct the name, or run `hf auth login`") from None
    except errors.RevisionNotFoundError:
        raise DataError(f"{location}: there is no such revision; name a branch, a tag or a commit") from None
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403):
            remedy = "run `hf auth login`, or set HF_TOKEN to a token that may write"
            raise DataError(f"{location}: {constants.ENDPOINT} does not allow it; {remedy}") from None
        raise StorageError(f"{location}: {constants.ENDPOINT} answered with status {status}; repeat it later") from None
    except (errors.LocalEntryNotFoundError, ConnectionError, client_error):
        message = f"{constants.ENDPOINT} cannot be reached, and the model is not in the hub's cache"
        raise StorageError(f"{location}: {message}; connect, or copy a model folder here and name it") from None
