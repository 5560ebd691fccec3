"""`sr3 train`: the stages of a preset, in parallel."""

from cluster.exits import DONE, FAILURE
from cluster.options.reading import CommandLine, as_json
from cluster.options.training import TrainOptions, command_line, take_preset
from cluster.training import describe_training, train_and_tell, training_session
from pipelines.settings.train import RunConfig

EXAMPLE = "sr3 train small-16-64 --data data --out runs/mine"


def command_line_of(run: RunConfig) -> CommandLine[TrainOptions]:
    """The command line of a preset."""
    return command_line("train", run, TrainOptions, example=EXAMPLE.replace("small-16-64", run.name))


def read(arguments: list[str]) -> TrainOptions:
    """Read `PRESET [OPTIONS]`: the options are the preset's own, `--optimizer.learning-rate` for a preset of one
    stage, `--64-256.optimizer.learning-rate` for one of several.

    Raises:
        ConfigError: no or an unknown preset, an invalid --config, an unknown stage.
    """
    preset, rest = take_preset("train", arguments, EXAMPLE)
    options = command_line_of(preset).read(rest)
    options.check_only()
    return options


def run(options: TrainOptions) -> int:
    """`sr3 train PRESET --data DIR --out RUN`."""
    config = options.run_config
    if options.print_config:
        print(as_json(config))
        return DONE
    from pipelines.runs.run_folder import data_fingerprints, open_run
    from pipelines.storage.folder_lease import refuse_if_busy

    fingerprints = data_fingerprints(options.data, config)
    if options.dry_run:
        refuse_if_busy(options.out, "training")
        for stage in config.stages:
            print(f"would train {stage.name} for {stage.num_steps} steps of {stage.batch_size} images in {options.out}")
        return DONE
    with training_session(config, options, fingerprints) as opened:
        if not train_and_tell(opened, options.only):
            return FAILURE
        for line in describe_training(open_run(options.out)):
            print(line)
    return DONE
