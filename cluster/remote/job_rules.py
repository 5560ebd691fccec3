"""What no job may hold: paths that its nodes cannot resolve, and secrets that its cluster would publish."""

import logging
import os
import re
from typing import Any
from urllib.parse import urlsplit

from cluster.options.fields import paths_in
from pipelines.settings.locations import HUB
from sr3core.errors import ConfigError

SECRET_NAME = re.compile(r"TOKEN|SECRET|PASSWORD|PASSWD|API_?KEY|ACCESS_KEY|CREDENTIAL", re.IGNORECASE)
SHORTEST_SECRET = 8
log = logging.getLogger(__name__)


def check_paths(options: Any) -> None:
    """Refuse relative paths in a command's options, defaults included; the options' types say which hold paths.

    Raises:
        ConfigError: a path is relative: a job's working directory is a temporary folder on some node.
    """
    for option, path in paths_in(options):
        check_path(option.name, path, is_default=path == option.default)


def check_path(option: str, path: str, is_default: bool = False) -> None:
    """Refuse a relative path, and note that an absolute one that also exists here is the cluster's.

    Raises:
        ConfigError: the path is relative.
    """
    if path.startswith(HUB) or ("://" in path and not path.startswith("file://")):
        return
    local = path.removeprefix("file://")
    if not os.path.isabs(local):
        raise ConfigError(
            f"{option}: {path} is relative, and a job starts in a temporary folder on the cluster; give an absolute"
            " path on a file system that all nodes share, or s3://bucket/prefix"
        )
    if os.path.exists(local) and not is_default:
        log.info("note: %s %s is read on the cluster's nodes; the copy on this machine is not uploaded", option, path)


def check_secrets(texts: list[str]) -> None:
    """Refuse what would publish a secret: everyone who sees the cluster sees a job's command line and files.

    Raises:
        ConfigError: a text holds the value of a variable such as AWS_SECRET_ACCESS_KEY, or a URL with a password.
    """
    for variable, value in os.environ.items():
        if SECRET_NAME.search(variable) and len(value) >= SHORTEST_SECRET and any(value in text for text in texts):
            raise ConfigError(
                f"the command contains the value of {variable}, and a job's command line is public on its cluster; set"
                " the variable on the nodes (by a Kubernetes secret or an instance role), and leave it out here"
            )
    for word in " ".join(texts).split():
        if "://" in word and "@" in word and urlsplit(word.strip("\"',")).password:
            raise ConfigError(
                "the command contains a URL with a password, and a job's command line is public on its cluster; leave"
                " the password out"
            )
