"""`sr3 ablate`: Table 5's ablations of a preset, trained and compared."""

from dataclasses import dataclass, field
from typing import Annotated

from cluster.exits import DONE, FAILURE
from cluster.loading import loading
from cluster.options.declared import Flat
from cluster.options.reading import CommandLine, as_json
from cluster.options.training import TrainOptions, command_line, take_preset
from cluster.training import train_and_tell, training_session
from pipelines.settings.evaluate import EvaluateConfig, MeasureConfig
from pipelines.settings.presets import table_5
from pipelines.settings.train import RunConfig
from sr3core.errors import ConfigError

EXAMPLE = "sr3 ablate small-16-64 --data data --out runs/ablation --num-seeds 3"


@dataclass(frozen=True, kw_only=True)
class Options(TrainOptions):
    """Train Table 5's variants of a preset's stage, and compare them on held-out images."""

    num_seeds: int = 1
    """Trainings per variant, each with its own seed."""
    evaluation: EvaluateConfig = field(default_factory=EvaluateConfig)
    """Held-out images and how they are sampled."""
    measure: Annotated[MeasureConfig, Flat] = field(default_factory=MeasureConfig)

    @property
    def arms(self) -> RunConfig:
        """The run that trains every variant with every seed."""
        return table_5(self.run_config.stages[0], self.num_seeds)


def command_line_of(run: RunConfig) -> CommandLine[Options]:
    """The command line of a preset."""
    return command_line("ablate", run, Options, "--num-seeds", example=EXAMPLE.replace("small-16-64", run.name))


def read(arguments: list[str]) -> Options:
    """Read `PRESET [OPTIONS]`.

    Raises:
        ConfigError: the preset is not a single SR3 stage, or an option is wrong.
    """
    base, rest = take_preset("ablate", arguments, EXAMPLE)
    if len(base.stages) != 1 or base.stages[0].model.kind != "sr3":
        raise ConfigError(
            f"ablate: {base.name} is not a single SR3 stage; choose a preset such as imagenet-64-256 or small-16-64"
        )
    options = command_line_of(base).read(rest)
    if options.num_seeds < 1:
        raise ConfigError(f"num_seeds: {options.num_seeds} is not positive")
    return options


def run(options: Options) -> int:
    """`sr3 ablate PRESET --data DIR --out RUN`."""
    config = options.arms
    if options.print_config:
        print(as_json(config))
        return DONE
    with loading():
        from pipelines.evaluation.networks import check_weight_files
        from pipelines.runs.run_folder import data_fingerprints
        from pipelines.runs.stage_schedules import check_schedule_file
        from pipelines.shards.mixtures import require_everywhere
        from pipelines.storage.leases.folder_lease import refuse_if_busy

    fingerprints = data_fingerprints(options.prepared_data, config)
    check_schedule_file(options.evaluation.schedule)
    check_weight_files(options.measure)
    if not options.only:
        require_everywhere(options.prepared_data, config.stages[0].data_stage, options.evaluation.split)
    if options.dry_run:
        refuse_if_busy(options.out, "training")
        for stage in config.stages:
            print(f"would train {stage.name} for {stage.num_steps} steps of {stage.batch_size} images")
        return DONE
    with loading():
        from pipelines.evaluation.ablation import compare_arms, tabulate_ablation

    with training_session(config, options, fingerprints) as opened:
        if not train_and_tell(opened, options.only):
            return FAILURE
        if options.only:
            return DONE
        ablation = compare_arms(options.out, options.evaluation, options.measure)
    print(tabulate_ablation(ablation))
    return DONE
