"""The options of `sr3 train` and `sr3 ablate`: a preset's stages, each with its own defaults."""

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, TypeVar

import tyro

from cluster.options.declared import Configured, OnRay, Writing
from cluster.options.help import listed
from cluster.options.reading import HELP, HELP_ALL, CommandLine, naming_file, split_config, take_config
from pipelines.settings.locations import DataLocation, Location
from pipelines.settings.mixtures import read_data
from pipelines.settings.presets import PRESETS, preset
from pipelines.settings.train import RunConfig, TrainConfig
from sr3core.config import did_you_mean, from_dict
from sr3core.errors import ConfigError

T = TypeVar("T", bound="TrainOptions")

PLACES = ("--data", "--out")
OF_A_STAGE = ("num-steps", "batch-size", "precision", "placement.num-workers", "placement.use-gpu")
ENDING = ("--fresh", "--dry-run", "--config", "--print-config", "--address")


@dataclass(frozen=True, kw_only=True)
class TrainOptions(Configured, Writing, OnRay):
    """Train the stages of a preset in parallel."""

    data: tuple[DataLocation, ...]
    """Folder or s3:// prefix that `sr3 prepare` wrote. Several are mixed: with weights, as in a=0.7 b=0.3, or in
    proportion to their numbers of images."""
    out: Location
    """Run folder; the same command again resumes from the newest checkpoints."""
    only: tuple[str, ...] = ()
    """Train only these stages."""
    fresh: bool = False
    """Delete what an earlier run left in --out, and start over."""
    preset: ClassVar[RunConfig]
    """The run whose stages are the defaults."""

    @property
    def prepared_data(self) -> str:
        """The data as a run remembers them.

        Raises:
            ConfigError: they cannot be mixed like this.
        """
        return read_data(self.data)

    @property
    def run_config(self) -> RunConfig:
        """The preset, its stages as the options have them."""
        stages = tuple(getattr(self, _identifier(stage.name)) for stage in self.preset.stages)
        return dataclasses.replace(self.preset, stages=stages)

    def check_only(self) -> None:
        """Refuse an unknown stage in --only.

        Raises:
            ConfigError: the run has no such stage.
        """
        known = [stage.name for stage in self.run_config.stages]
        for name in self.only:
            if name not in known:
                raise ConfigError(f"only: {self.preset.name} has no stage {name!r}, {did_you_mean(name, known)}")


def take_preset(command: str, arguments: list[str], example: str) -> tuple[RunConfig, list[str]]:
    """Take the preset, or `--config FILE`, out of the arguments: the run, and the arguments that are left.

    Without either, a request for help prints how to choose a preset, and exits.

    Raises:
        ConfigError: neither is there, or it is unknown or invalid.
    """
    path, _ = split_config(arguments)
    content, arguments = take_config(arguments)
    if content is not None:
        with naming_file(path):
            return from_dict(RunConfig, content), arguments
    if arguments and not arguments[0].startswith("-"):
        return preset(arguments[0]), arguments[1:]
    if {*HELP, HELP_ALL} & set(arguments):
        print(preset_help(command, example))
        raise SystemExit(0)
    raise ConfigError(
        f"name a preset, or --config FILE: `sr3 {command} PRESET --data DIR --out RUN`; `sr3 {command} PRESET --help`"
        f" shows its options.\n{presets_listed()}"
    )


def preset_help(command: str, example: str) -> str:
    """What `sr3 train --help` prints: the presets, and how to go on from there."""
    return "\n".join(
        [
            f"usage: sr3 {command} PRESET --data PATH --out PATH [OPTIONS]",
            f"       sr3 {command} --config FILE --data PATH --out PATH [OPTIONS]",
            "",
            presets_listed(),
            "",
            f"`sr3 {command} PRESET --help` shows the options of a preset.",
            "",
            "example:",
            f"  {example}",
        ]
    )


def presets_listed() -> str:
    """The presets, a line each."""
    summaries = {name: (make.__doc__ or "").split("\n")[0] for name, make in PRESETS.items()}
    return "\n".join(["presets:", *listed(summaries)])


def command_line(command: str, run: RunConfig, options: type[T], *more: str, example: str) -> CommandLine[T]:
    """The command line of a preset: a field a stage, so that each stage shows its own defaults.

    Args:
        command: train or ablate.
        run: the preset.
        options: dataclass of the options beside the stages'.
        more: names of those of them that the help shows.
        example: a command to show.
    """
    alone = len(run.stages) == 1
    names = tuple(stage.name for stage in run.stages)
    fields: list[Any] = [
        (_identifier(stage.name), Annotated[TrainConfig, tyro.conf.arg(name="" if alone else stage.name)], stage)
        for stage in run.stages
    ]
    made = dataclasses.make_dataclass(
        options.__name__,
        [(name, kind, dataclasses.field(default=stage)) for name, kind, stage in fields],
        bases=(options,),
        namespace={"preset": run},
        frozen=True,
        kw_only=True,
    )
    made.__doc__ = options.__doc__
    several = f"STAGE is one of {', '.join(names)}: `--{names[0]}.num-steps 1000` changes that stage alone."
    return CommandLine(
        name=f"{command} {run.name}",
        options=made,
        essential=(
            *PLACES,
            *more,
            *(f"--{name}" if alone else f"--STAGE.{name}" for name in OF_A_STAGE),
            *(() if alone else ("--only",)),
            *ENDING,
        ),
        examples=(example,),
        notes=() if alone else (several,),
        stages=() if alone else names,
    )


def _identifier(stage: str) -> str:
    return "stage_" + "".join(letter if letter.isalnum() else "_" for letter in stage)
