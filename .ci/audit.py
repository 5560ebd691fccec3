"""Look up every installed package in the Python Package Index's advisories, as pip-audit does; part of `make test`.

    python .ci/audit.py [--strict]

Exit status: 1 where a package has a known vulnerability that ACCEPTED does not name, or, with --strict, where the index
cannot be asked. Without --strict that is said and forgiven: tests must run on a machine without the internet.
"""

import argparse
import json
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from importlib import metadata

from pip._internal.models.index import PyPI  # pip's own notion of where the index is

INDEX = PyPI.pypi_url
ACCEPTED: dict[str, str] = {}
"""Advisory -> why it does not concern us."""
OURS = "sr3-on-ray"


def advisories(index: str, name: str, version: str) -> list[str] | None:
    """Identifiers of what is known against a version, None where the index does not know it (a build of one's own).

    Raises:
        OSError: the index cannot be reached.
    """
    url = f"{index}/{name}/{version.partition('+')[0]}/json"
    try:
        with urllib.request.urlopen(url, timeout=10) as response:
            found = json.load(response).get("vulnerabilities", [])
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise
    known = (item for item in found if not item["withdrawn"])
    return [f"{item['id']} (fixed in {', '.join(item['fixed_in']) or 'nothing yet'})" for item in known]


def installed() -> Iterator[tuple[str, str]]:
    """Name and version of each installed package."""
    for distribution in metadata.distributions():
        name = distribution.metadata["Name"]
        if name.lower() != OURS:
            yield name, distribution.version


def main(arguments: list[str] | None = None) -> int:
    """Ask, print, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strict", action="store_true", help="fail where the index cannot be asked")
    parser.add_argument("--index", default=INDEX, help="JSON API of a package index")
    options = parser.parse_args(arguments)
    try:
        if advisories(options.index, "pip", metadata.version("pip")) is None:  # every index with advisories knows pip
            raise OSError("it does not know pip")
        found = {f"{name} {version}": advisories(options.index, name, version) for name, version in sorted(installed())}
    except OSError as error:
        print(f"audit: NOT DONE, {options.index} cannot be asked for advisories: {error}")
        return 1 if options.strict else 0
    bad = {package: [a for a in listed or () if a.split()[0] not in ACCEPTED] for package, listed in found.items()}
    for package, listed in bad.items():
        for advisory in listed:
            print(f"audit: {package}: {advisory}")
    unknown = sorted(package for package, listed in found.items() if listed is None)
    print(
        f"audit: {len(found)} packages, {sum(map(bool, bad.values()))} with known vulnerabilities, unknown: {unknown}"
    )
    return 1 if any(bad.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
