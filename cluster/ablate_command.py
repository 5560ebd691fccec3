"""The command `sr3 ablate`."""

import dataclasses
from typing import Annotated

import tyro

from cluster.exits import FAILURE
from cluster.options import Flat, parse, printed, stages_of, take_preset, train_options
from cluster.training import train_and_tell, training_session
from pipelines.settings.evaluate import EvaluateConfig, MeasureConfig
from pipelines.settings.presets import table_5
from sr3core.errors import ConfigError

NumSeeds = Annotated[int, tyro.conf.arg(help="Trainings of each arm, with seeds of their own.")]
MORE = (
    ("num_seeds", NumSeeds, dataclasses.field(default=1)),
    ("evaluation", EvaluateConfig, dataclasses.field(default_factory=EvaluateConfig)),
    ("measure", Annotated[MeasureConfig, Flat], dataclasses.field(default_factory=MeasureConfig)),
)


def ablate(arguments: list[str]) -> int:
    """`sr3 ablate PRESET --data DIR --out RUN`: Table 5's arms of the preset's stage, trained and compared."""
    base, arguments = take_preset("ablate", arguments)
    if len(base.stages) != 1 or base.stages[0].model.kind != "sr3":
        raise ConfigError(f"ablate: {base.name} is not one SR3 stage; take one such as imagenet-64-256 or small-16-64")
    options = parse(train_options(base, MORE), f"ablate {base.name}", arguments)
    if options.num_seeds < 1:
        raise ConfigError(f"num_seeds: {options.num_seeds} is not positive")
    run_config = table_5(stages_of(options, base).stages[0], options.num_seeds)
    if options.common.print_config:
        print(printed(run_config))
        return 0
    from pipelines.runs.run_folder import data_fingerprints

    place = options.place
    fingerprints = data_fingerprints(place.data, run_config)
    if options.common.dry_run:
        for stage in run_config.stages:
            print(f"would train {stage.name} for {stage.num_steps} steps of {stage.batch_size} images")
        return 0
    from pipelines.evaluation.ablation import compare_arms, tabulate_ablation

    with training_session(run_config, place, fingerprints, options.common.address) as run:
        if not train_and_tell(run, place.only):
            return FAILURE
        if place.only:
            return 0
        ablation = compare_arms(place.out, options.evaluation, options.measure)
    print(tabulate_ablation(ablation))
    return 0
