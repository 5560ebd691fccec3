"""Reduce KubeRay's CRDs to what the tests need: `python tests/cluster/kuberay_crds/reduce.py FOLDER_OF_CRDS`."""

import json
import sys
from pathlib import Path
from typing import Any

import yaml

KINDS = ("RayCluster", "RayJob", "RayCronJob")


def without_descriptions(schema: Any) -> Any:
    """The schema without the texts that describe its fields; a field may itself be called description."""
    if isinstance(schema, list):
        return [without_descriptions(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: without_descriptions(value)
        for key, value in schema.items()
        if not (key == "description" and isinstance(value, str))
    }


def main(folder: str) -> None:
    """Write the v1 schema of each kind beside this file."""
    for kind in KINDS:
        path = Path(folder) / f"ray.io_{kind.lower()}s.yaml"
        versions = yaml.load(path.read_text(), yaml.CSafeLoader)["spec"]["versions"]
        (schema,) = (version["schema"]["openAPIV3Schema"] for version in versions if version["name"] == "v1")
        text = json.dumps(without_descriptions(schema), separators=(",", ":"), sort_keys=True)
        (Path(__file__).parent / f"{kind}.json").write_text(text + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
