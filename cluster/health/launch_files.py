"""What is wrong with a launch file before a node starts: placeholders, a missing token, what the cloud lacks."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cluster.health.checks import Check
from pipelines.storage.local_files import describe_error
from pipelines.storage.uris import is_remote
from pipelines.storage.versioned_json import decoding
from sr3core.errors import DataError

PLACEHOLDERS = (
    "ACCOUNT",
    "BUCKET",
    "FILESTORE_ADDRESS",
    "FILE_SYSTEM",
    "IMAGE",
    "PROJECT",
    "REGISTRY",
    "SHARED_STORAGE_CLASS",
)
"""What the shipped files leave to be replaced."""
_PLACEHOLDER = re.compile(rf"(?<![A-Z_])({'|'.join(PLACEHOLDERS)})(?![A-Z_])")
NO_STANDARD_DISK = ("a3-", "c3-", "g2-")
"""Families of Google's machines that refuse pd-standard, which is what a disk without a type becomes."""


def examine_launch(path: str, buckets: tuple[str, ...]) -> dict[str, list[Check]]:
    """The checks of a launch file, or of each in a folder.

    Args:
        path: a file of `ray up`, a manifest, or a folder of manifests.
        buckets: s3:// locations that the cluster is to use.

    Returns:
        File -> its checks.

    Raises:
        DataError: there is no such file, or it is no launch file.
    """
    if is_remote(path):
        raise DataError(f"{path}: a launch file must be on this machine; copy it here")
    found = Path(path)
    files = sorted(found.rglob("*.yaml")) if found.is_dir() else [found]
    if not files or not files[0].is_file():
        raise DataError(f"{path}: no launch file; give a file of `ray up`, or a folder of Kubernetes manifests")
    checks: dict[str, list[Check]] = {}
    for file in files:
        with decoding(file, "file of `ray up` or Kubernetes manifest", "compare it with the shipped ones in cluster/"):
            checks[str(file)] = list(_examine(file, buckets))
    return checks


def _examine(file: Path, buckets: tuple[str, ...]) -> Iterator[Check]:
    import yaml

    text = _text_of(file)
    left = placeholders(text)
    yield check_placeholders(left)
    try:
        first: dict[str, Any] = next(iter(yaml.safe_load_all(text)), {})
    except yaml.YAMLError as error:
        raise DataError(f"{file}: not YAML: {' '.join(str(error).split())}; correct it") from error
    if "provider" not in first and "kind" not in first:
        raise DataError(f"{file}: neither a file of `ray up` (it has no provider) nor a manifest (no kind); give one")
    if "provider" not in first:
        return
    yield check_token_to_copy(first)
    if first["provider"].get("type") == "gcp":
        yield from check_google(first)
    if first["provider"].get("type") == "aws":
        from cluster.health.aws import ask_aws

        yield from ask_aws(first, buckets)


def _text_of(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: not text, but {error.reason}; give a YAML file") from error
    except OSError as error:
        raise DataError(f"{file}: {describe_error(error)}") from error


def placeholders(text: str) -> dict[str, list[int]]:
    """What is left to replace -> the numbers of its lines; comments do not count."""
    found: dict[str, list[int]] = {}
    for number, line in enumerate(text.splitlines(), 1):
        for name in set(_PLACEHOLDER.findall(re.sub(r"(^|\s)#.*", "", line))):
            found.setdefault(name, []).append(number)
    return found


def check_placeholders(left: dict[str, list[int]]) -> Check:
    """Whether every placeholder is replaced."""
    if not left:
        return Check("placeholders", "ok", "all are replaced")
    told = "; ".join(f"{name} in line {', '.join(map(str, lines))}" for name, lines in sorted(left.items()))
    return Check("placeholders", "fail", told, "replace them by your own")


def check_token_to_copy(config: dict[str, Any]) -> Check:
    """Whether the token that `ray up` copies to the nodes is there."""
    for remote, local in (config.get("file_mounts") or {}).items():
        if remote.endswith("/auth_token"):
            path = Path(os.path.expanduser(local))
            if path.is_file() and path.stat().st_size:
                return Check("token", "ok", f"{local} is copied to the nodes")
            remedy = f"`ray get-auth-token --generate && chmod 600 {local}`"
            return Check("token", "fail", f"{local}, which is copied to the nodes, is missing or empty", remedy)
    return Check("token", "warn", "none is copied to the nodes", "mount ~/.ray/auth_token, as the shipped file does")


def check_google(config: dict[str, Any]) -> Iterator[Check]:
    """What can be said about a file for Google Cloud without asking it."""
    provider = config["provider"]
    zone, region = provider["availability_zone"], provider["region"]
    if not zone.startswith(f"{region}-"):
        yield Check("zone", "fail", f"{zone} is not in {region}", "correct provider.availability_zone")
    for name, node_type in config["available_node_types"].items():
        node = node_type["node_config"]
        machine = node["machineType"]
        disks = [disk.get("initializeParams", {}).get("diskType", "pd-standard") for disk in node["disks"]]
        if machine.startswith(NO_STANDARD_DISK) and any(disk.endswith("pd-standard") for disk in disks):
            remedy = f"initializeParams.diskType: zones/{zone}/diskTypes/pd-ssd"
            yield Check("disk", "fail", f"{name}: {machine} has no pd-standard disks", remedy)
        remedy = f"`gcloud compute machine-types describe {machine} --zone {zone}` says whether the zone has it"
        yield Check("machine", "warn", f"{name}: Google was not asked about {machine}", remedy)
