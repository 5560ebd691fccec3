"""The commands `sr3 retrain` and `sr3 models`."""

from dataclasses import dataclass, field
from typing import Annotated

import tyro

from cluster.options import Common, parse, printed, read_config
from cluster.session import ray_session
from sr3core.config import from_dict
from sr3core.errors import ConfigError
from tune.retraining.settings import RetrainConfig

Flat = tyro.conf.arg(name="")


@dataclass(frozen=True, kw_only=True)
class RetrainOptions:
    """Train on what is new in a source, and promote the new model if it is better than the one in force."""

    config: Annotated[str, tyro.conf.Positional]
    """JSON file: source, shards, what is trained and how it is judged; docs/operations.md shows one."""
    always: bool = False
    """Train even if the source holds nothing new."""
    fresh: bool = False
    """Give up a retraining that has not ended, and begin another."""
    common: Annotated[Common, Flat] = field(default_factory=Common)


def retrain(arguments: list[str]) -> int:
    """`sr3 retrain CONFIG.json`: the same command again goes on where it stopped."""
    options = parse(RetrainOptions, "retrain", arguments)
    config = from_dict(RetrainConfig, read_config(options.config))
    if options.common.print_config:
        print(printed(config))
        return 0
    if options.common.dry_run:
        stages = ", ".join(stage.name for stage in config.run_config.stages)
        print(f"would train {stages} on what is new in {config.prepare.source}, for {config.registry}")
        return 0
    from pipelines.registry.registry import Registry
    from pipelines.storage.lease import refuse_if_held
    from pipelines.storage.uris import absolute

    refuse_if_held(Registry(absolute(config.registry)).lease)  # said before anything is started; retrain takes it
    from tune.retraining.retrain import retrain as run_retrain

    with ray_session(options.common.address):
        outcome = run_retrain(config, options.always, options.fresh)
    if outcome.version is None:
        print(outcome.why)
    else:
        print(f"{outcome.version} is {'promoted' if outcome.promoted else 'NOT promoted'}: {outcome.why}")
    return 0


@dataclass(frozen=True, kw_only=True)
class ModelsOptions:
    """List the versions of a registry of models, or change which of them is in force."""

    registry: Annotated[str, tyro.conf.Positional]
    """Folder or s3:// prefix that `sr3 retrain` writes its models to."""
    rollback: bool = False
    """Put the version in force again that the current one replaced."""
    promote: str | None = None
    """Put this version in force, such as v0003, whatever its numbers."""
    verify: bool = False
    """Compare every file of every version with its sha256."""

    def __post_init__(self) -> None:
        if self.rollback and self.promote is not None:
            raise ConfigError("--rollback names a version by itself; leave out --promote, or the other way round")


def models(arguments: list[str]) -> int:
    """`sr3 models REGISTRY`, `sr3 models REGISTRY --rollback`."""
    options = parse(ModelsOptions, "models", arguments)
    from pipelines.registry.registry import Registry, describe
    from pipelines.storage.uris import absolute

    registry = Registry(absolute(options.registry))
    if options.rollback or options.promote is not None:
        print(f"{registry.roll_back(options.promote)} is in force")
    for version in registry.versions() if options.verify else ():
        registry.verify(version.name)
        print(f"{version.name} is whole")
    for line in describe(registry):
        print(line)
    return 0
