"""Command lines as typed dataclasses: tyro reads them, --config and --print-config write and read them back."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tyro

from pipelines.settings.presets import PRESETS, preset
from pipelines.settings.train import RunConfig, TrainConfig
from sr3core.config import did_you_mean, from_dict, to_dict
from sr3core.errors import ConfigError

T = TypeVar("T")
Flat = tyro.conf.arg(name="")


@dataclass(frozen=True, kw_only=True)
class Common:
    """Options that every command has."""

    address: str | None = None
    """Ray cluster to run on; default: RAY_ADDRESS, which a submitted job has, else a local Ray."""
    dry_run: bool = False
    """Check everything and say what would be done, without doing it."""
    print_config: bool = False
    """Print the complete configuration as JSON and stop; --config reads it back."""


def parse(cls: type[T], command: str, arguments: list[str], default: T | None = None) -> T:
    """Read a command's options; --help and mistakes print and exit as command lines do (status 2)."""
    return tyro.cli(
        cls,
        prog=f"sr3 {command}",
        description=cls.__doc__,
        args=arguments,
        default=tyro.MISSING_NONPROP if default is None else default,
        config=(tyro.conf.OmitSubcommandPrefixes,),
    )


def take_config(arguments: list[str]) -> tuple[dict[str, Any] | None, list[str]]:
    """Take `--config FILE` out of the arguments: its JSON, and the arguments that are left.

    Raises:
        ConfigError: the file is missing or no JSON object.
    """
    for index, argument in enumerate(arguments):
        if argument == "--config" or argument.startswith("--config="):
            inline = argument.partition("=")[2]
            rest = arguments[:index] + arguments[index + (1 if inline else 2) :]
            content = read_config(inline or (arguments[index + 1] if index + 1 < len(arguments) else ""))
            return content.get("config", content), rest  # a run's own config.json wraps it with provenance
    return None, arguments


def read_config(path: str) -> dict[str, Any]:
    """Read a JSON object from a file.

    Raises:
        ConfigError: the file is missing or no JSON object.
    """
    try:
        content = json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"config: {path} cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"config: {path} holds no JSON object")
    return content


@dataclass(frozen=True, kw_only=True)
class TrainPlace:
    """Where a run reads and writes."""

    data: str
    """Folder that `sr3 prepare` wrote."""
    out: str
    """Run folder; the same command again goes on where it stopped."""
    only: tuple[str, ...] = ()
    """Train only these stages."""
    fresh: bool = False
    """Delete what an earlier run left in --out and start over."""


def parse_train(arguments: list[str]) -> tuple[RunConfig, TrainPlace, Common]:
    """Read `PRESET [OPTIONS]`: the options are the preset's own, `--optimizer.learning-rate` for a preset of one
    stage, `--64-256.optimizer.learning-rate` for one of several.

    Raises:
        ConfigError: no or an unknown preset, an invalid --config, an unknown stage.
    """
    run, arguments = take_preset("train", arguments)
    options = parse(train_options(run), f"train {run.name}", arguments)
    run = stages_of(options, run)
    known = [stage.name for stage in run.stages]
    for name in options.place.only:
        if name not in known:
            raise ConfigError(f"only: {run.name} has no stage {name!r}, {did_you_mean(name, known)}")
    return run, options.place, options.common


def take_preset(command: str, arguments: list[str]) -> tuple[RunConfig, list[str]]:
    """Take the preset, or `--config FILE`, out of the arguments: the run, and the arguments that are left.

    Raises:
        ConfigError: neither is there, or it is unknown or invalid.
    """
    content, arguments = take_config(arguments)
    if content is not None:
        return from_dict(RunConfig, content), arguments
    if arguments and not arguments[0].startswith("-"):
        return preset(arguments[0]), arguments[1:]
    listed = "\n".join(f"  {name:<26} {make.__doc__}" for name, make in PRESETS.items())
    raise ConfigError(
        f"name a preset: `sr3 {command} PRESET --data DIR --out RUN`, `sr3 {command} PRESET --help` for its options,"
        f" or --config FILE.\npresets:\n{listed}"
    )


def train_options(run: RunConfig, more: Sequence[tuple[str, Any, Any]] = ()) -> Any:
    """A dataclass with a field a stage, so that tyro shows each stage's own defaults; `more` are fields beside them."""
    alone = len(run.stages) == 1
    fields: list[Any] = [
        ("place", Annotated[TrainPlace, Flat]),
        ("common", Annotated[Common, Flat], field(default_factory=Common)),
        *more,
    ]
    for stage in run.stages:
        named = Annotated[TrainConfig, tyro.conf.arg(name="" if alone else stage.name)]
        fields.append((_identifier(stage.name), named, dataclasses.field(default=stage)))
    options = dataclasses.make_dataclass("TrainOptions", fields, frozen=True, kw_only=True)
    options.__doc__ = f"Train {run.name}."
    return options


def stages_of(options: Any, run: RunConfig) -> RunConfig:
    """The run with its stages as the options have them."""
    return dataclasses.replace(run, stages=tuple(getattr(options, _identifier(stage.name)) for stage in run.stages))


def _identifier(stage: str) -> str:
    return "stage_" + "".join(letter if letter.isalnum() else "_" for letter in stage)


def printed(config: Any) -> str:
    """A configuration as --config reads it."""
    return json.dumps(to_dict(config), indent=1)
