"""Uploading a model folder to the Hugging Face hub."""

from pipelines.runs.hub_models import check_name, hub_errors, require_hub
from pipelines.settings.locations import HUB
from pipelines.storage.uris import absolute, is_remote
from sr3core.errors import ConfigError


def check_upload(folder: str, name: str) -> None:
    """Check what can be known before a model is written.

    Raises:
        ConfigError: the name is none, the folder is in a bucket, or huggingface_hub is not installed.
    """
    check_name(name)
    if is_remote(folder):
        raise ConfigError(f"upload: {folder} is in a bucket; export into a folder on this machine")
    require_hub()


def upload_model(folder: str, name: str) -> str:
    """Upload a model folder as one commit; the repository is created if there is none.

    Args:
        folder: a model folder on this machine.
        name: ORG/NAME.

    Returns:
        What `--run` takes to use this commit: hf:ORG/NAME@COMMIT.

    Raises:
        DataError: the hub does not allow it.
        StorageError: the hub cannot be reached.
    """
    with hub_errors(f"{HUB}{name}"):
        api = require_hub().HfApi()
        api.create_repo(name, exist_ok=True)
        commit = api.upload_folder(repo_id=name, folder_path=absolute(folder), commit_message="Exported by sr3")
    return f"{HUB}{name}@{commit.oid}"
