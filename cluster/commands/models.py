"""`sr3 models`: the versions in a registry, and which of them is in use."""

from dataclasses import dataclass
from typing import Annotated

import tyro

from cluster.exits import DONE
from cluster.options.reading import CommandLine
from pipelines.settings.locations import Location
from sr3core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Options:
    """List the model versions of a registry, or change which of them is promoted."""

    registry: Annotated[Location, tyro.conf.Positional]
    """Folder or s3:// prefix that `sr3 retrain` writes its models to."""
    rollback: bool = False
    """Promote the version again that the current one replaced, whether by retraining or by hand."""
    promote: str | None = None
    """Promote this version, such as v0003, whatever its metrics."""
    verify: bool = False
    """Compare every file of every version with its sha256."""

    def __post_init__(self) -> None:
        if self.rollback and self.promote is not None:
            raise ConfigError("--rollback chooses the version itself; leave out --promote or --rollback")


COMMAND_LINE = CommandLine(
    name="models",
    options=Options,
    essential=("REGISTRY", "--rollback", "--promote", "--verify"),
    examples=("sr3 models s3://bucket/models", "sr3 models s3://bucket/models --rollback"),
)


def run(options: Options) -> int:
    """`sr3 models REGISTRY`, `sr3 models REGISTRY --rollback`."""
    from pipelines.registry.listing import describe
    from pipelines.registry.registry import Registry
    from pipelines.storage.uris import absolute

    registry = Registry(absolute(options.registry))
    if options.promote is not None:
        registry.promote_by_hand(options.promote)
    if options.rollback:
        print(f"rolled back to {registry.roll_back()}")
    for version in registry.versions() if options.verify else ():
        registry.verify(version.name)
        print(f"{version.name} is whole")
    for line in describe(registry):
        print(line)
    return DONE
